//! Bodies of the control socket's requests.

use redirector::{
    control::api::{ImportRequest, RollbackRequest},
    route::{RawRoute, Route, RoutePatch},
};
use serde::{Serialize, de::DeserializeOwned};

/// A body: the first byte selects the request. What is read is written back as itself, and a route
/// is accepted or refused with its problems.
pub fn request(data: &[u8]) {
    let Some((&choice, body)) = data.split_first() else { return };
    match choice % 4 {
        0 => {
            if let Some(raw) = read::<RawRoute>(body) {
                check_route(raw);
            }
        }
        1 => drop(read::<RoutePatch>(body)),
        2 => drop(read::<ImportRequest>(body)),
        _ => drop(read::<RollbackRequest>(body)),
    }
}

fn read<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(body: &[u8]) -> Option<T> {
    let value: T = serde_json::from_slice(body).ok()?;
    let written = serde_json::to_vec(&value).expect("what was read as JSON is JSON");
    assert_eq!(serde_json::from_slice::<T>(&written).ok().as_ref(), Some(&value));
    Some(value)
}

fn check_route(raw: RawRoute) {
    match Route::try_from(raw) {
        Ok(route) => {
            let again = Route::try_from(RawRoute::from(&route));
            assert!(again.is_ok_and(|again| again == route), "the route changes");
        }
        Err(problems) => assert!(!problems.one_line().is_empty(), "refused without a problem"),
    }
}
