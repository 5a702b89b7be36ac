use std::collections::BTreeSet;
use std::process::Command;

use serde_json::{Value, json};

use super::{deployed, said, text};

/// Reads the YAML documents on standard input's path and writes them as one JSON list.
const TO_JSON: &str = "import json, sys, yaml; \
    print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";

/// The documents by their kind; `None` where no YAML can be read here.
fn documents() -> Option<Vec<Value>> {
    let manifest = deployed("kubernetes/daemonset.yaml");
    match Command::new("python3").args(["-c", "import yaml"]).output() {
        Ok(output) if output.status.success() => {}
        _ => {
            println!("skipped: reading YAML needs python3 with PyYAML (package python3-yaml)");
            return None;
        }
    }
    let (content, said) = said(Command::new("python3").args(["-c", TO_JSON]).arg(manifest));
    assert!(content, "{said}");
    Some(serde_json::from_str(&said).unwrap())
}

fn of_kind<'a>(documents: &'a [Value], kind: &str) -> &'a Value {
    documents.iter().find(|one| one["kind"] == kind).unwrap_or_else(|| panic!("no {kind}"))
}

fn strings(list: &Value) -> BTreeSet<String> {
    list.as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_owned()).collect()
}

fn names(list: &Value) -> BTreeSet<&str> {
    list.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect()
}

#[test]
fn the_pod_has_the_capabilities_of_the_unit_and_no_privilege() {
    let Some(documents) = documents() else { return };
    let pod = &of_kind(&documents, "DaemonSet")["spec"]["template"]["spec"];
    let context = &pod["containers"][0]["securityContext"];
    let unit = text("systemd/halfsecond.service");
    let of_unit: BTreeSet<_> = unit
        .lines()
        .find_map(|line| line.strip_prefix("AmbientCapabilities="))
        .unwrap()
        .split_whitespace()
        .map(|name| name.trim_start_matches("CAP_").to_owned())
        .collect();
    assert_eq!(strings(&context["capabilities"]["add"]), of_unit);
    assert_eq!(context["capabilities"]["drop"], json!(["ALL"]));
    assert_eq!(context["privileged"], json!(false));
    assert_eq!(context["allowPrivilegeEscalation"], json!(false));
    assert_eq!(context["readOnlyRootFilesystem"], json!(true));
    assert_eq!(pod["automountServiceAccountToken"], json!(false));
    assert_eq!(pod["hostPID"], json!(true));
    for absent in ["hostNetwork", "hostIPC"] {
        assert!(pod[absent].is_null(), "{absent}");
    }
}

#[test]
fn the_pod_mounts_what_it_declares_and_writes_to_its_state_only() {
    let Some(documents) = documents() else { return };
    let pod = &of_kind(&documents, "DaemonSet")["spec"]["template"]["spec"];
    let mounts = &pod["containers"][0]["volumeMounts"];
    assert_eq!(names(mounts), names(&pod["volumes"]));
    for mount in mounts.as_array().unwrap() {
        let read_only = mount["readOnly"] == json!(true);
        assert_eq!(read_only, mount["mountPath"] != "/var/lib/halfsecond", "{mount}");
    }
    let host: BTreeSet<_> = pod["volumes"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|volume| volume["hostPath"]["path"].as_str())
        .collect();
    let expected = ["/sys/kernel/btf", "/sys/kernel/tracing", "/var/lib/halfsecond"];
    assert_eq!(host, BTreeSet::from(expected));
}

#[test]
fn the_pod_is_asked_where_its_configuration_listens() {
    let Some(documents) = documents() else { return };
    let config = of_kind(&documents, "ConfigMap")["data"]["halfsecond.toml"].as_str().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("halfsecond.toml");
    std::fs::write(&path, config).unwrap();
    let listen = sensor::config::Config::load(Some(&path)).unwrap().http.listen.unwrap();
    assert!(listen.ip().is_unspecified(), "the kubelet cannot reach {listen}");
    let set = of_kind(&documents, "DaemonSet");
    let container = &set["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["ports"][0]["containerPort"], json!(listen.port()));
    assert_eq!(container["livenessProbe"]["httpGet"]["path"], "/healthz");
    assert_eq!(container["readinessProbe"]["httpGet"]["path"], "/readyz");
    let annotations = &set["spec"]["template"]["metadata"]["annotations"];
    assert_eq!(annotations["prometheus.io/port"], json!(listen.port().to_string()));
    let policy = &of_kind(&documents, "NetworkPolicy")["spec"]["ingress"][0]["ports"][0];
    assert_eq!(policy["port"], json!(listen.port()));
}

#[test]
fn objects_stand_in_their_namespace_and_select_their_pods() {
    let Some(documents) = documents() else { return };
    let namespace = &of_kind(&documents, "Namespace")["metadata"]["name"];
    for document in documents.iter().filter(|one| one["kind"] != "Namespace") {
        assert_eq!(&document["metadata"]["namespace"], namespace, "{}", document["kind"]);
    }
    let set = &of_kind(&documents, "DaemonSet")["spec"];
    let selected = &set["selector"]["matchLabels"];
    assert_eq!(selected, &set["template"]["metadata"]["labels"]);
    assert_eq!(
        selected,
        &of_kind(&documents, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"]
    );
    let account = &of_kind(&documents, "ServiceAccount")["metadata"]["name"];
    assert_eq!(account, &set["template"]["spec"]["serviceAccountName"]);
}

#[test]
fn the_image_holds_the_static_binary_and_nothing_to_run_it_with() {
    let file = text("container/Dockerfile");
    let lines: Vec<_> =
        file.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
    assert_eq!(lines[0], "FROM scratch");
    assert!(lines.iter().all(|line| !line.starts_with("RUN")), "there is no shell");
    assert!(lines.contains(&"ENTRYPOINT [\"/usr/bin/halfsecond\"]"), "{lines:?}");
}
