//! A filter that makes chosen system calls fail in the calling thread, as containers do.
//!
//! Filters belong to a thread and what it spawns, so each test installs its own in a fresh thread and no other test
//! notices.

use std::io;

/// A system call that is answered with an error.
pub struct Refusal {
    pub call: libc::c_long,
    /// Refused only when argument `.0` has one of the bits `.1`.
    pub only_if: Option<(u32, u32)>,
    pub code: libc::c_int,
}

/// Offset of the system call's number in `seccomp_data`.
const NUMBER_OFFSET: u32 = 0;
/// Offset of the arguments, eight bytes each, low half first on a little-endian machine.
const ARGUMENTS_OFFSET: u32 = 16;

fn load(offset: u32) -> libc::sock_filter {
    statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset)
}

fn statement(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    }
}

fn answer(value: u32) -> libc::sock_filter {
    statement(libc::BPF_RET | libc::BPF_K, value)
}

/// Goes on if the comparison holds, else skips `skip` instructions.
fn unless_skip(comparison: u32, k: u32, skip: u8) -> libc::sock_filter {
    libc::sock_filter {
        code: (libc::BPF_JMP | comparison | libc::BPF_K) as u16,
        jt: 0,
        jf: skip,
        k,
    }
}

/// Runs `action` in a thread in which `refusals` are in force.
pub fn with_refusals<T: Send + 'static>(
    refusals: &[Refusal],
    action: impl FnOnce() -> T + Send + 'static,
) -> T {
    let mut program = Vec::new();
    for refusal in refusals {
        let refuse = answer(libc::SECCOMP_RET_ERRNO | refusal.code as u32);
        program.push(load(NUMBER_OFFSET));
        match refusal.only_if {
            None => program.push(unless_skip(libc::BPF_JEQ, refusal.call as u32, 1)),
            Some((argument, bits)) => {
                program.push(unless_skip(libc::BPF_JEQ, refusal.call as u32, 3));
                program.push(load(ARGUMENTS_OFFSET + 8 * argument));
                program.push(unless_skip(libc::BPF_JSET, bits, 1));
            }
        }
        program.push(refuse);
    }
    program.push(answer(libc::SECCOMP_RET_ALLOW));
    let thread = std::thread::spawn(move || {
        install(&mut program).expect("the system allows seccomp filters");
        action()
    });
    thread.join().expect("the action doesn't panic")
}

fn install(program: &mut [libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the first call takes no pointers; the second reads `program` and the instructions that it points to,
    // both of which live until it returns.
    let failed = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
            || libc::prctl(
                libc::PR_SET_SECCOMP,
                libc::SECCOMP_MODE_FILTER,
                &raw const program,
            ) != 0
    };
    if failed {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
