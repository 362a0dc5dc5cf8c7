//! Reads published vectors from `shared/vectors` beside the repository. They are never
//! copied in here; where they are missing the test says so and checks nothing.

use std::path::PathBuf;

use serde_json::Value;

pub(crate) fn load(file: &str) -> Option<Value> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors").join(file);
    match std::fs::read(&path) {
        Ok(bytes) => Some(serde_json::from_slice(&bytes).unwrap()),
        Err(_) => {
            eprintln!("SKIPPED: published vectors {file} are not beside the repository");
            None
        }
    }
}

pub(crate) struct Case<'a>(&'a Value);

impl Case<'_> {
    pub(crate) fn bytes(&self, name: &str) -> Vec<u8> {
        hex::decode(self.0[name].as_str().unwrap_or_default()).unwrap()
    }

    pub(crate) fn is_valid(&self) -> bool {
        self.0["result"] == "valid"
    }

    pub(crate) fn number(&self, name: &str) -> usize {
        self.0[name].as_u64().unwrap() as usize
    }
}

/// Runs a Wycheproof file. `run` gets the group and the case and returns the output,
/// or None where it refuses. Valid cases must give the expected output, invalid ones
/// must not; acceptable ones may be refused or be right.
pub(crate) fn wycheproof(file: &str, run: impl Fn(&Case<'_>, &Case<'_>) -> Option<Vec<u8>>) {
    let Some(document) = load(file) else { return };
    let mut count = 0;
    for group in document["testGroups"].as_array().unwrap() {
        for case in group["tests"].as_array().unwrap() {
            count += 1;
            let expected = ["K", "shared", "okm", "ct", "ek", "verified"]
                .iter()
                .find_map(|name| case[*name].as_str())
                .map(|text| hex::decode(text).unwrap())
                .unwrap_or_else(|| b"ok".to_vec());
            let expected = match file {
                name if name.contains("encaps") => Case(case).bytes("K"),
                name if name.contains("keygen") => Case(case).bytes("ek"),
                _ => expected,
            };
            let got = run(&Case(group), &Case(case));
            let right = got.as_deref() == Some(&expected[..]);
            let id = &case["tcId"];
            match case["result"].as_str().unwrap() {
                "valid" => assert!(right, "{file} case {id}"),
                "acceptable" => assert!(right || got.is_none(), "{file} case {id}"),
                _ => assert!(!right, "{file} case {id} must be refused"),
            }
        }
    }
    assert_eq!(count as u64, document["numberOfTests"].as_u64().unwrap());
}
