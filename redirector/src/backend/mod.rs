//! Where routes lead.
