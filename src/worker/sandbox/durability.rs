//! Nothing in the sandbox waits for the disk: what is written there is thrown away, or committed as a
//! whole and made durable then. dpkg and maintainer scripts ask for it hundreds of times.

use std::fs::File;
use std::io::{self, Seek, Write};

use rustix::fs::{MemfdFlags, memfd_create};

/// `AUDIT_ARCH_*` of `linux/audit.h`: only this program's own system calls are told by number.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// The calls that return at once and have done nothing: fsync(2), sync(2), `sync_file_range(2)`, msync(2).
const SKIPPED: [libc::c_long; 6] = [
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_sync,
    libc::SYS_syncfs,
    libc::SYS_sync_file_range,
    libc::SYS_msync,
];

// bpf(4) as seccomp(2) takes it: `linux/bpf_common.h`, `linux/seccomp.h`.
const LOAD: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
const OFFSET_OF_NUMBER: u32 = 0;
const OFFSET_OF_ARCHITECTURE: u32 = 4;
const ALLOW: u32 = 0x7fff_0000;
/// `SECCOMP_RET_ERRNO` with the number 0: the call is skipped and answers success.
const SUCCEED: u32 = 0x0005_0000;

/// The filter, in a file that `bwrap --seccomp` reads.
pub(super) fn filter() -> io::Result<File> {
    let mut file = File::from(memfd_create("seccomp-filter", MemfdFlags::empty())?);
    file.write_all(&program())?;
    file.rewind()?;
    Ok(file)
}

fn program() -> Vec<u8> {
    let mut instructions = vec![
        instruction(LOAD, 0, 0, OFFSET_OF_ARCHITECTURE),
        instruction(JUMP_IF_EQUAL, 1, 0, ARCHITECTURE),
        instruction(RETURN, 0, 0, ALLOW),
        instruction(LOAD, 0, 0, OFFSET_OF_NUMBER),
    ];
    for (number, left) in SKIPPED.iter().zip((1..=SKIPPED.len()).rev()) {
        let number = u32::try_from(*number).unwrap_or(u32::MAX);
        // Over the comparisons that are left, and over the return behind them.
        let jump = u8::try_from(left).unwrap_or(0);
        instructions.push(instruction(JUMP_IF_EQUAL, jump, 0, number));
    }
    instructions.push(instruction(RETURN, 0, 0, ALLOW));
    instructions.push(instruction(RETURN, 0, 0, SUCCEED));
    instructions.concat()
}

/// `struct sock_filter`.
fn instruction(code: u16, if_true: u8, if_false: u8, operand: u32) -> Vec<u8> {
    let mut bytes = code.to_ne_bytes().to_vec();
    bytes.extend([if_true, if_false]);
    bytes.extend(operand.to_ne_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program on a call, as the kernel does.
    fn verdict(architecture: u32, number: u32) -> u32 {
        let program = program();
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let bytes = &program[at * 8..at * 8 + 8];
            let code = u16::from_ne_bytes([bytes[0], bytes[1]]);
            let operand = u32::from_ne_bytes(bytes[4..].try_into().unwrap());
            at += 1;
            match code {
                LOAD if operand == OFFSET_OF_NUMBER => accumulator = number,
                LOAD => accumulator = architecture,
                JUMP_IF_EQUAL => {
                    at += usize::from(if accumulator == operand { bytes[2] } else { bytes[3] });
                }
                _ => return operand,
            }
        }
    }

    #[test]
    fn what_waits_for_the_disk_is_skipped_and_nothing_else() {
        for number in 0..500_u32 {
            let expected = if SKIPPED.contains(&number.into()) { SUCCEED } else { ALLOW };
            assert_eq!(verdict(ARCHITECTURE, number), expected, "{number}");
            assert_eq!(verdict(0x4000_0003, number), ALLOW, "of another architecture: {number}");
        }
    }
}
