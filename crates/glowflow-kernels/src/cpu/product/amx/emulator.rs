//! Emulates AMX on processors without it: a handler for illegal instructions executes the tile instructions,
//! and checks shapes like a processor.

use std::cell::RefCell;
use std::sync::Once;

use half::bf16;

/// A tile register and its shape.
#[derive(Clone, Copy)]
struct Tile {
    rows: usize,
    /// Bytes per row.
    row: usize,
    data: [[u8; 64]; 16],
}

const NONE: Tile = Tile { rows: 0, row: 0, data: [[0; 64]; 16] };

thread_local! {
    /// A thread's tiles; nothing here needs a constructor or destructor, which a signal handler could not
    /// run.
    static TILES: RefCell<[Tile; 8]> = const { RefCell::new([NONE; 8]) };
}

/// A thread's registers, indexed by `libc`'s numbers.
type Registers = [libc::greg_t; 23];

/// Installs the handler for illegal instructions of this process.
pub fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the handler keeps to what it is given; all zeros are a valid action.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            let handle: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) = handle;
            action.sa_sigaction = handle as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER;
            assert_eq!(libc::sigaction(libc::SIGILL, &raw const action, std::ptr::null_mut()), 0);
        }
    });
}

extern "C" fn handle(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the system calls this with the context of the thread that was interrupted.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let at = registers[libc::REG_RIP as usize] as *const u8;
    // SAFETY: the longest of these instructions has ten bytes, and none is the last of the program.
    let code = unsafe { std::slice::from_raw_parts(at, 10) };
    match TILES.with_borrow_mut(|tiles| execute(code, registers, tiles)) {
        Some(len) => registers[libc::REG_RIP as usize] += len as i64,
        None => {
            eprintln!("illegal instruction: {code:02x?}");
            std::process::abort();
        }
    }
}

/// Executes an instruction and returns its length; `None` if a processor would reject it.
fn execute(code: &[u8], registers: &Registers, tiles: &mut [Tile; 8]) -> Option<usize> {
    // A three-byte VEX prefix, map 0F38, 128 bits, W 0. Bits that extend or select registers are inverted.
    let [0xc4, extend, prefix, opcode, modrm, ..] = *code else { return None };
    if extend & 0x1f != 2 || prefix & 0x84 != 0 {
        return None;
    }
    let operand = usize::from(!prefix >> 3 & 15);
    let (mode, reg, rm) = (modrm >> 6, usize::from(modrm >> 3 & 7), usize::from(modrm & 7));
    match (opcode, prefix & 3, mode) {
        (0x49, 0, 3) if modrm == 0xc0 => {
            *tiles = [NONE; 8];
            Some(5)
        }
        (0x49, 0, _) if reg == 0 => {
            let (address, _, len) = address(code, registers)?;
            // SAFETY: the instruction reads 64 bytes.
            let config = unsafe { &*(address as *const [u8; 64]) };
            configure(config, tiles)?;
            Some(len)
        }
        (0x4b, load @ (2 | 3), 0..=2) => {
            let (address, stride, len) = address(code, registers)?;
            let tile = shaped(tiles.get_mut(reg)?)?;
            for (i, data) in tile.data[..tile.rows].iter_mut().enumerate() {
                let memory = (address + i * stride?) as *mut u8;
                // SAFETY: the instruction reads or writes a row there.
                unsafe {
                    if load == 3 {
                        std::ptr::copy_nonoverlapping(memory, data.as_mut_ptr(), tile.row);
                    } else {
                        std::ptr::copy_nonoverlapping(data.as_ptr(), memory, tile.row);
                    }
                }
            }
            Some(len)
        }
        (0x5c, 2, 3) => {
            let (a, b) = (*shaped(&mut tiles[rm])?, *shaped(tiles.get_mut(operand)?)?);
            multiply(shaped(&mut tiles[reg])?, &a, &b)?;
            Some(5)
        }
        _ => None,
    }
}

/// A tile, unless it has no shape.
fn shaped(tile: &mut Tile) -> Option<&mut Tile> {
    (tile.rows > 0 && tile.row > 0).then_some(tile)
}

/// The address of an instruction's memory operand, the index register as a stride if there is one, and the
/// instruction's length.
fn address(code: &[u8], registers: &Registers) -> Option<(usize, Option<usize>, usize)> {
    use libc::*;
    let numbered = [
        REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI, REG_R8, REG_R9, REG_R10,
        REG_R11, REG_R12, REG_R13, REG_R14, REG_R15,
    ];
    let register = |low: u8, extended: bool| {
        registers[numbered[usize::from(low & 7) + 8 * usize::from(extended)] as usize] as usize
    };
    let (extend, modrm) = (!code[1], code[4]);
    let (index_extended, base_extended) = (extend & 0x40 != 0, extend & 0x20 != 0);
    let (base, stride, at) = if modrm & 7 == 4 {
        let sib = code[5];
        let stride = register(sib >> 3, index_extended) << (sib >> 6);
        ((sib, base_extended), (sib >> 3 & 7 != 4 || index_extended).then_some(stride), 6)
    } else {
        ((modrm, base_extended), None, 5)
    };
    let (displacement, len) = match modrm >> 6 {
        // Without a base, or relative to the instruction: unused here.
        0 if base.0 & 7 == 5 => return None,
        0 => (0, at),
        1 => (i32::from(code[at] as i8), at + 1),
        _ => (i32::from_le_bytes(code[at..at + 4].try_into().ok()?), at + 4),
    };
    Some((register(base.0, base.1).wrapping_add_signed(displacement as isize), stride, len))
}

/// Configures and clears the tiles.
fn configure(config: &[u8; 64], tiles: &mut [Tile; 8]) -> Option<()> {
    let reserved = config[2..16].iter().chain(&config[32..48]).chain(&config[56..]);
    if config[0] != 1 || reserved.into_iter().any(|&x| x != 0) {
        return None;
    }
    for (i, tile) in tiles.iter_mut().enumerate() {
        let row = u16::from_le_bytes([config[16 + 2 * i], config[17 + 2 * i]]);
        *tile = Tile { rows: usize::from(config[48 + i]), row: usize::from(row), ..NONE };
        if tile.rows > 16 || tile.row > 64 || (tile.rows == 0) != (tile.row == 0) {
            return None;
        }
    }
    Some(())
}

/// `c += a·b`: even and odd factors are summed separately, then the two sums are added, in this order.
fn multiply(c: &mut Tile, a: &Tile, b: &Tile) -> Option<()> {
    if a.rows != c.rows || b.row != c.row || a.row != 4 * b.rows {
        return None;
    }
    let flush = |x: f32| if x.is_subnormal() { 0.0 } else { x };
    let factor = |row: &[u8; 64], i: usize| flush(bf16::from_le_bytes([row[2 * i], row[2 * i + 1]]).to_f32());
    for (c, a) in c.data[..c.rows].iter_mut().zip(&a.data) {
        for (j, c) in c[..b.row].chunks_exact_mut(4).enumerate() {
            let mut sums = [0.0f32; 2];
            for (k, b) in b.data[..b.rows].iter().enumerate() {
                for (odd, sum) in sums.iter_mut().enumerate() {
                    *sum = flush(factor(a, 2 * k + odd).mul_add(factor(b, 2 * j + odd), *sum));
                }
            }
            let before = f32::from_le_bytes([c[0], c[1], c[2], c[3]]);
            c.copy_from_slice(&flush(before + flush(sums[0] + sums[1])).to_le_bytes());
        }
    }
    Some(())
}
