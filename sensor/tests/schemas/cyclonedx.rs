//! The published schema of CycloneDX 1.6, for tests.

use std::error::Error;

use jsonschema::{Retrieve, Uri, Validator};
use serde_json::Value;

const BOM: &str = include_str!("bom-1.6.schema.json");
const SPDX: &str = include_str!("spdx.schema.json");
const JSF: &str = include_str!("jsf-0.82.schema.json");

/// The schemas that the first one refers to.
struct Beside;

impl Retrieve for Beside {
    fn retrieve(&self, uri: &Uri<String>) -> Result<Value, Box<dyn Error + Send + Sync>> {
        let text = match uri.as_str() {
            "http://cyclonedx.org/schema/spdx.schema.json" => SPDX,
            "http://cyclonedx.org/schema/jsf-0.82.schema.json" => JSF,
            other => return Err(format!("{other} is not here").into()),
        };
        Ok(serde_json::from_str(text)?)
    }
}

pub(crate) fn validator() -> Validator {
    let schema = serde_json::from_str(BOM).unwrap();
    jsonschema::options()
        .should_validate_formats(true)
        .with_retriever(Beside)
        .build(&schema)
        .unwrap()
}

#[track_caller]
pub(crate) fn assert_valid(bom: &Value) {
    let errors: Vec<String> = validator()
        .iter_errors(bom)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{errors:#?}");
}
