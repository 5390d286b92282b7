//! Pins randomness and time of this process: ring, chitchat, rand and the standard library reach the kernel
//! through these three symbols, which the simulator defines in front of libc's.
//!
//! Only threads that asked for it are pinned: see [`pinned`]. Everything here is safe to call at any time,
//! before `main` too.

use std::cell::Cell;
use std::time::Duration;

thread_local! {
    static SEED: Cell<Option<u64>> = const { Cell::new(None) };
    static INSIDE: Cell<bool> = const { Cell::new(false) };
    static BEGAN: Cell<Option<tokio::time::Instant>> = const { Cell::new(None) };
}

/// The simulated clocks begin here: monotonic and wall, in seconds.
const MONOTONIC_BEGIN_S: i64 = 1_000;
const WALL_BEGIN_S: i64 = 1_800_000_000;

fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// # Safety
/// As libc's: `buf` must be valid for `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buf: *mut u8, len: usize, flags: u32) -> isize {
    let Ok(Some(mut state)) = SEED.try_with(Cell::get) else {
        // SAFETY: the kernel's own call with the caller's arguments.
        return unsafe { raw(libc::SYS_getrandom, buf as i64, len as i64, i64::from(flags), 0, 0, 0) }
            as isize;
    };
    // SAFETY: the caller vouches for the buffer.
    let out = unsafe { std::slice::from_raw_parts_mut(buf, len) };
    for chunk in out.chunks_mut(8) {
        chunk.copy_from_slice(&splitmix(&mut state).to_le_bytes()[..chunk.len()]);
    }
    SEED.with(|seed| seed.set(Some(state)));
    len as isize
}

/// libc's `syscall` is variadic; on x86-64 a definition with six arguments has the same calling convention.
///
/// # Safety
/// As libc's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn syscall(n: i64, a: i64, b: i64, c: i64, d: i64, e: i64, f: i64) -> i64 {
    if n == libc::SYS_getrandom && b > 0 && SEED.try_with(|seed| seed.get().is_some()).unwrap_or(false) {
        // SAFETY: the arguments are those of getrandom.
        return unsafe { getrandom(a as *mut u8, b as usize, c as u32) } as i64;
    }
    // SAFETY: passed on as it came.
    unsafe { raw(n, a, b, c, d, e, f) }
}

unsafe fn raw(n: i64, a: i64, b: i64, c: i64, d: i64, e: i64, f: i64) -> i64 {
    let mut result: i64;
    // SAFETY: the x86-64 system call convention; the caller vouches for the arguments.
    unsafe {
        std::arch::asm!("syscall", inlateout("rax") n => result, in("rdi") a, in("rsi") b, in("rdx") c,
            in("r10") d, in("r8") e, in("r9") f, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    if (-4095..0).contains(&result) {
        // SAFETY: errno of this thread.
        unsafe { *libc::__errno_location() = -result as i32 };
        result = -1;
    }
    result
}

/// # Safety
/// As libc's: `ts` must be valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, ts: *mut libc::timespec) -> i32 {
    let wanted = clock == libc::CLOCK_MONOTONIC || clock == libc::CLOCK_REALTIME;
    let pinned = SEED.try_with(|seed| seed.get().is_some()).unwrap_or(false);
    if !(wanted && pinned) {
        // SAFETY: the kernel's own call with the caller's arguments.
        return unsafe { raw(libc::SYS_clock_gettime, i64::from(clock), ts as i64, 0, 0, 0, 0) } as i32;
    }
    // tokio's paused clock itself begins with a reading of this one: that must not recurse.
    let elapsed = if INSIDE.with(|inside| inside.replace(true)) {
        Duration::ZERO
    } else {
        let now =
            BEGAN.with(Cell::get).map(|began| tokio::time::Instant::now().saturating_duration_since(began));
        INSIDE.with(|inside| inside.set(false));
        now.unwrap_or_default()
    };
    let base = if clock == libc::CLOCK_REALTIME { WALL_BEGIN_S } else { MONOTONIC_BEGIN_S };
    // SAFETY: the caller vouches for the pointer.
    unsafe {
        (*ts).tv_sec = base + elapsed.as_secs() as i64;
        (*ts).tv_nsec = i64::from(elapsed.subsec_nanos());
    }
    0
}

/// Virtual wall-clock time in milliseconds since the Unix epoch.
#[must_use]
pub fn wall_ms() -> u64 {
    let elapsed = BEGAN.with(Cell::get).map_or(Duration::ZERO, |began| began.elapsed());
    (WALL_BEGIN_S as u64) * 1000 + elapsed.as_millis() as u64
}

/// Time of the real clock, whatever is pinned.
#[must_use]
pub fn real_elapsed() -> Duration {
    let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid pointer.
    unsafe { raw(libc::SYS_clock_gettime, i64::from(libc::CLOCK_MONOTONIC), &raw mut ts as i64, 0, 0, 0, 0) };
    Duration::new(ts.tv_sec as u64, ts.tv_nsec as u32)
}

/// Call once the paused runtime runs: virtual time begins now.
pub fn begin_clock() {
    INSIDE.with(|inside| inside.set(true));
    let now = tokio::time::Instant::now();
    INSIDE.with(|inside| inside.set(false));
    BEGAN.with(|began| began.set(Some(now)));
}

/// Let something happen under virtual time, which begins now.
pub fn in_virtual_time<T>(work: impl Future<Output = T>) -> T {
    let system = actix_rt::System::with_tokio_rt(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        #[allow(clippy::expect_used, reason = "actix takes no error here, and nothing can go on without it")]
        runtime.expect("a runtime without threads and sockets")
    });
    system.block_on(async {
        begin_clock();
        work.await
    })
}

/// Run `work` on a fresh thread whose randomness and clocks follow from the seed. A fresh thread, because
/// hash keys and generators of a thread are drawn once.
pub fn pinned<T: Send + 'static>(
    seed: u64,
    work: impl FnOnce() -> T + Send + 'static,
) -> std::thread::Result<T> {
    let body = move || {
        SEED.with(|cell| cell.set(Some(seed)));
        let result = work();
        SEED.with(|cell| cell.set(None));
        result
    };
    match std::thread::Builder::new().name(format!("seed-{seed}")).stack_size(64 << 20).spawn(body) {
        Ok(handle) => handle.join(),
        Err(error) => Err(Box::new(error)),
    }
}
