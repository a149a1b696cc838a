//! DNS queries as bytes, for programs that send many.

/// The type of a record with an IPv4 address.
pub const A: u16 = 1;

/// A query for the records of type `kind` of a name, with recursion and without EDNS (RFC 1035
/// section 4.1).
pub fn query(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut query = id.to_be_bytes().to_vec();
    query.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        query.push(label.len() as u8);
        query.extend(label.bytes());
    }
    query.push(0);
    query.extend(kind.to_be_bytes());
    query.extend([0, 1]);
    query
}
