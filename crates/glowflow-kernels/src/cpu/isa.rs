//! Instruction sets of processors, and compilation of a loop for each of them.

#![allow(unsafe_code)]

/// Instruction sets with product kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// [`Isa::Avx512Bf16`] plus AMX's bf16 tiles, for products of bf16. Used on request only.
    Amx,
    /// AMX emulated by a handler for illegal instructions; requires no optional instructions.
    #[cfg(test)]
    AmxEmulated,
    /// [`Isa::Avx512`] plus AVX-512 BF16, for products of bf16.
    Avx512Bf16,
    /// x86-64 with AVX-512 F, BW, DQ and VL.
    Avx512,
    /// x86-64 with AVX2 and FMA.
    Avx2,
    /// The compiler's default: SSE2 on x86-64, NEON on 64-bit Arm.
    Baseline,
}

impl Isa {
    /// Instruction sets of this processor for products of `f32` and `f64`, best first.
    pub fn available() -> Vec<Self> {
        let mut found = vec![];
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            // Every processor with the first has the others too, except for the obsolete Xeon Phi.
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            if avx2 && avx512 {
                found.push(Self::Avx512);
            }
            if avx2 {
                found.push(Self::Avx2);
            }
        }
        found.push(Self::Baseline);
        found
    }

    /// Runs a task compiled for this instruction set. The results are bit-identical to those without it.
    ///
    /// # Safety
    /// The processor has it.
    pub unsafe fn run<T: Task>(self, task: T) -> T::Output {
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
        fn avx512<T: Task>(task: T) -> T::Output {
            task.run()
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma")]
        fn avx2<T: Task>(task: T) -> T::Output {
            task.run()
        }
        match self {
            // SAFETY: the caller's contract.
            #[cfg(target_arch = "x86_64")]
            Self::Amx | Self::Avx512Bf16 | Self::Avx512 => unsafe { avx512(task) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { avx2(task) },
            _ => task.run(),
        }
    }

    /// Like [`available`](Self::available), for bf16, without [`Isa::Amx`]. [`Isa::Baseline`] is slower than
    /// `f32` and exists for comparison.
    pub fn available_for_bf16() -> Vec<Self> {
        let mut found = vec![];
        #[cfg(target_arch = "x86_64")]
        if Self::available().contains(&Self::Avx512) && is_x86_feature_detected!("avx512bf16") {
            found.push(Self::Avx512Bf16);
        }
        found.push(Self::Baseline);
        found
    }

    /// Returns whether the processor has [`Isa::Amx`] and the operating system lets this process use it. On
    /// Linux this requests the permission, which lasts as long as the process.
    pub fn has_amx() -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            Self::available_for_bf16().contains(&Self::Avx512Bf16) && tiles_allowed()
        }
        #[cfg(not(target_arch = "x86_64"))]
        false
    }
}

/// A loop that the compiler vectorises for the instruction set detected at run time.
///
/// Only code inlined into [`Isa::run`] is compiled for its instructions. Therefore [`run`](Task::run) is
/// `#[inline(always)]`, and so is every function that it calls for each number. Closures cannot be, which is
/// why this is a trait.
pub trait Task {
    /// The result of the task.
    type Output;
    /// Runs the task.
    fn run(self) -> Self::Output;
}

/// Returns whether the processor has AMX with bf16, and the operating system lets this process use it. On
/// Linux the permission must be requested, once for all threads, because the tiles' 8 KiB enlarge every
/// context switch.
#[cfg(target_arch = "x86_64")]
fn tiles_allowed() -> bool {
    #[cfg(target_os = "linux")]
    {
        use std::sync::OnceLock;
        static ALLOWED: OnceLock<bool> = OnceLock::new();
        *ALLOWED.get_or_init(|| {
            const AMX_BF16: u32 = 1 << 22;
            const AMX_TILE: u32 = 1 << 24;
            /// `arch_prctl` request for a component of the processor state, and the number of the tile
            /// component.
            const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
            const TILES: libc::c_long = 18;
            // SAFETY: callers have detected AVX-512, so the processor has leaf 7. (Newer versions of Rust
            // declare it safe.)
            #[allow(unused_unsafe)]
            let features = unsafe { std::arch::x86_64::__cpuid_count(7, 0) }.edx;
            let there = features & (AMX_BF16 | AMX_TILE) == AMX_BF16 | AMX_TILE;
            // SAFETY: the call takes two numbers and accesses no memory of this process.
            there && unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILES) } == 0
        })
    }
    #[cfg(not(target_os = "linux"))]
    false
}
