//! dnsmasq, as a server or a forwarder of a test.

/// Options of one that stays in the foreground and reads no file of the host.
pub const OPTIONS: [&str; 6] = [
    "--keep-in-foreground",
    "--no-resolv",
    "--no-hosts",
    "--conf-file=/dev/null",
    "--pid-file=",
    "--user=root",
];
