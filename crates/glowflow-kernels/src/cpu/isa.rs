//! The instruction sets of processors, and how a loop is compiled for each of them.

#![allow(unsafe_code)]

/// Instruction sets that the product has a kernel for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// [`Isa::Avx512Bf16`] with AMX's tiles of bf16: for products of bf16.
    Amx,
    /// AMX by way of a handler of illegal instructions, and nothing else that a processor may lack.
    #[cfg(test)]
    AmxEmulated,
    /// [`Isa::Avx512`] with AVX-512 BF16: for products of bf16.
    Avx512Bf16,
    /// x86-64 with AVX-512 F, BW, DQ and VL.
    Avx512,
    /// x86-64 with AVX2 and FMA.
    Avx2,
    /// Whatever the compiler may assume: SSE2 on x86-64, NEON on 64-bit Arm.
    Baseline,
}

impl Isa {
    /// Every instruction set of this processor that `f32` and `f64` are multiplied with, the best first.
    pub fn available() -> Vec<Self> {
        let mut found = vec![];
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            // Every processor with the first but the long forgotten Xeon Phi has the others too.
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

    /// Runs a task with what this instruction set has. The results have the same bits as without.
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

    /// The same as [`available`](Self::available) for bf16. [`Isa::Baseline`] is slower than `f32`, and there to compare with.
    pub fn available_for_bf16() -> Vec<Self> {
        let mut found = vec![];
        #[cfg(target_arch = "x86_64")]
        if Self::available().contains(&Self::Avx512) && is_x86_feature_detected!("avx512bf16") {
            if tiles_allowed() {
                found.push(Self::Amx);
            }
            found.push(Self::Avx512Bf16);
        }
        found.push(Self::Baseline);
        found
    }
}

/// A loop that the compiler is to make vectors of, with whatever instructions the processor at hand turns out to have.
///
/// Only what is inlined into [`Isa::run`] is compiled for its instructions. So [`run`](Task::run) is `#[inline(always)]`, and so is every
/// function that it calls for each number. Closures cannot be, which is why this is a trait.
pub trait Task {
    /// What comes of it.
    type Output;
    /// Does it.
    fn run(self) -> Self::Output;
}

/// Whether the processor has AMX with bf16, and the operating system lets this process use it. Linux must be asked, once for all
/// threads, because the tiles' 8 KiB make every context switch larger.
#[cfg(target_arch = "x86_64")]
fn tiles_allowed() -> bool {
    #[cfg(target_os = "linux")]
    {
        use std::sync::OnceLock;
        static ALLOWED: OnceLock<bool> = OnceLock::new();
        *ALLOWED.get_or_init(|| {
            const AMX_BF16: u32 = 1 << 22;
            const AMX_TILE: u32 = 1 << 24;
            /// `arch_prctl`'s request for a part of the processor's state, and the number of the part that is the tiles.
            const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
            const TILES: libc::c_long = 18;
            // SAFETY: whoever asks has found AVX-512, so that the processor has leaf 7. (Newer versions of Rust
            // call it safe.)
            #[allow(unused_unsafe)]
            let features = unsafe { std::arch::x86_64::__cpuid_count(7, 0) }.edx;
            let there = features & (AMX_BF16 | AMX_TILE) == AMX_BF16 | AMX_TILE;
            // SAFETY: the call takes two numbers and touches no memory of ours.
            there && unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILES) } == 0
        })
    }
    #[cfg(not(target_os = "linux"))]
    false
}
