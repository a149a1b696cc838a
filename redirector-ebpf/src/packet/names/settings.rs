//! The settings of names.

use redirector_common::packet::name::NameSettings;

use crate::{maps::element, packet::maps::RD_NAME_CONF};

/// The settings of names, if names are answered.
#[inline(always)]
pub(super) fn settings() -> Option<&'static NameSettings> {
    // SAFETY: a map value stays mapped while a program runs. The agent changes it in whole words.
    let settings = unsafe { &*element(&RD_NAME_CONF, 0)? };
    if settings.enabled == 0 { None } else { Some(settings) }
}
