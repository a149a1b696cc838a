//! The CycloneDX 1.6 document. It has neither a time nor a serial number, so that the same source
//! gives the same document.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::parts::{Identity, Part, Parts};

/// The component that the document is about.
const PRODUCT: &str = "redirector";

pub(super) fn document(parts: &Parts) -> Value {
    let product = parts.crates.iter().find(|((name, _), _)| name == PRODUCT);
    let others = parts.crates.iter().filter(|((name, _), _)| name != PRODUCT);
    let mut components: Vec<_> =
        others.map(|(identity, part)| component("library", identity, part)).collect();
    let libraries = linked_libraries(parts);
    let references: Vec<_> = libraries.iter().map(|library| library["bom-ref"].clone()).collect();
    components.extend(libraries);
    let mut dependencies: Vec<_> = parts.crates.iter().map(dependency).collect();
    if let Some((identity, part)) = product {
        let mut all = json_references(&part.dependencies);
        all.extend(references);
        dependencies.retain(|entry| entry["ref"] != reference(identity));
        dependencies.push(json!({ "ref": reference(identity), "dependsOn": all }));
    }
    json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component":
                product.map(|(identity, part)| component("application", identity, part)),
        },
        "components": components,
        "dependencies": dependencies,
    })
}

fn component(kind: &str, identity: &Identity, part: &Part) -> Value {
    let (name, version) = identity;
    let mut component = json!({
        "type": kind,
        "bom-ref": reference(identity),
        "name": name,
        "version": version,
        "purl": reference(identity),
        "licenses": [{ "expression": spdx(&part.licence) }],
    });
    if let Some(checksum) = &part.checksum {
        component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
    }
    if let Some(repository) = &part.repository {
        component["externalReferences"] = json!([{ "type": "vcs", "url": repository }]);
    }
    component
}

/// The libraries that no crate brings.
fn linked_libraries(parts: &Parts) -> Vec<Value> {
    let library = |name: &str, version: &str, purl: String, licence: &str| {
        json!({
            "type": "library",
            "bom-ref": purl,
            "name": name,
            "version": version,
            "purl": purl,
            "licenses": [{ "expression": licence }],
        })
    };
    vec![
        library(
            "rust-std",
            &parts.rust,
            format!("pkg:generic/rust-std@{}", parts.rust),
            "MIT OR Apache-2.0",
        ),
        library(
            "glibc",
            &parts.glibc,
            format!("pkg:deb/debian/glibc@{}", parts.glibc.replace('+', "%2B")),
            "LGPL-2.1-or-later",
        ),
    ]
}

fn dependency((identity, part): (&Identity, &Part)) -> Value {
    json!({ "ref": reference(identity), "dependsOn": json_references(&part.dependencies) })
}

fn json_references(identities: &BTreeSet<Identity>) -> Vec<Value> {
    identities.iter().map(|identity| reference(identity).into()).collect()
}

/// A package URL.
fn reference((name, version): &Identity) -> String {
    format!("pkg:cargo/{name}@{}", version.replace('+', "%2B"))
}

/// Older manifests separate alternatives by a slash.
fn spdx(licence: &str) -> String {
    licence.split('/').map(str::trim).collect::<Vec<_>>().join(" OR ")
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn identity(name: &str, version: &str) -> Identity {
        (name.to_owned(), version.to_owned())
    }

    fn part(licence: &str, dependencies: &[Identity]) -> Part {
        Part {
            licence: licence.to_owned(),
            repository: Some("https://example.org/source".to_owned()),
            checksum: Some("ab".repeat(32)),
            folder: PathBuf::new(),
            dependencies: dependencies.iter().cloned().collect(),
        }
    }

    #[test]
    fn the_document_has_each_part_and_its_dependencies() {
        let library = identity("library", "1.2.0+build");
        let parts = Parts {
            crates: [
                (identity(PRODUCT, "0.1.0"), part("MIT", std::slice::from_ref(&library))),
                (library, part("MIT/Apache-2.0", &[])),
            ]
            .into(),
            rust: "1.95.0".to_owned(),
            glibc: "2.36-9+deb12u14".to_owned(),
            glibc_licences: String::new(),
        };
        let document = document(&parts);
        assert_eq!(document["metadata"]["component"]["type"], "application");
        let library = &document["components"][0];
        assert_eq!(library["purl"], "pkg:cargo/library@1.2.0%2Bbuild");
        assert_eq!(library["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(library["hashes"][0]["content"], "ab".repeat(32));
        assert_eq!(
            document["dependencies"][1],
            json!({
                "ref": "pkg:cargo/redirector@0.1.0",
                "dependsOn": [
                    "pkg:cargo/library@1.2.0%2Bbuild",
                    "pkg:generic/rust-std@1.95.0",
                    "pkg:deb/debian/glibc@2.36-9%2Bdeb12u14",
                ],
            })
        );
    }
}
