//! The guest itself: a kernel test that fails here fails because of the rig, not of a probe.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;

/// `BTF_MAGIC` of linux/btf.h.
const BTF_MAGIC: u16 = 0xeb9f;

#[test]
fn the_kernel_carries_its_types() {
    let btf = fs::read("/sys/kernel/btf/vmlinux").unwrap();
    assert_eq!(u16::from_ne_bytes([btf[0], btf[1]]), BTF_MAGIC);
}

#[test]
fn tracing_and_bpf_file_systems_are_mounted() {
    let tracepoint = "/sys/kernel/tracing/events/sched/sched_process_exec/id";
    assert!(fs::read_to_string(tracepoint).unwrap().trim().parse::<u32>().is_ok());
    fs::create_dir("/sys/fs/bpf/guest-test").unwrap();
    fs::remove_dir("/sys/fs/bpf/guest-test").unwrap();
    assert!(fs::exists("/sys/fs/cgroup/cgroup.controllers").unwrap());
}

#[test]
fn tests_lie_on_a_file_system_of_disks() {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let disk = mounts.lines().find(|line| line.split(' ').nth(1) == Some("/tmp"));
    assert_eq!(disk.and_then(|line| line.split(' ').nth(2)), Some("ext4"), "{mounts}");
}

#[test]
fn a_compiler_works() {
    fs::write("/tmp/guest.c", "int main(void) { return 7; }\n").unwrap();
    let built = Command::new("cc").args(["-o", "/tmp/guest", "/tmp/guest.c"]).output().unwrap();
    assert!(built.status.success(), "{built:?}");
    assert_eq!(Command::new("/tmp/guest").status().unwrap().code(), Some(7));
}

#[test]
fn dynamically_linked_programs_run() {
    for (program, args) in [("/bin/true", &[][..]), ("/bin/ls", &["/"]), ("openssl", &["version"])]
    {
        let output = Command::new(program).args(args).output().unwrap();
        assert!(output.status.success(), "{program}: {output:?}");
    }
}

#[test]
fn a_shell_starts_children() {
    let output =
        Command::new("/bin/sh").args(["-c", "true; cat /proc/self/comm"]).output().unwrap();
    assert_eq!(output.stdout, b"cat\n", "{output:?}");
}

#[test]
fn loopback_carries_data() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    client.write_all(b"x").unwrap();
    let mut byte = [0];
    server.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"x");
}
