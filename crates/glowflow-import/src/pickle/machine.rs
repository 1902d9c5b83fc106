//! The stack machine.

use std::collections::HashMap;

use super::{Global, Objects, Value};

/// Maximum number of instructions: a checkpoint has about 20 per tensor.
const MAX_INSTRUCTIONS: usize = 8 << 20;
/// Highest supported protocol.
const MAX_PROTOCOL: u8 = 5;

/// Reads the pickle at the start of `bytes`; returns its value and the remaining bytes. `objects` receives
/// the values that it refers to. The error states the problem.
pub(crate) fn load<'a>(bytes: &'a [u8], objects: &mut Objects) -> Result<(Value, &'a [u8]), String> {
    let mut machine = Machine {
        rest: bytes,
        length: bytes.len(),
        objects,
        stack: vec![],
        marks: vec![],
        memo: HashMap::new(),
    };
    for _ in 0..MAX_INSTRUCTIONS {
        let opcode = machine.byte()?;
        if opcode == b'.' {
            let value = machine.pop()?;
            return Ok((value, machine.rest));
        }
        let at = machine.length - machine.rest.len() - 1;
        machine.run(opcode).map_err(|reason| format!("the pickle is not readable at byte {at}: {reason}"))?;
    }
    Err(format!("the pickle has more than {MAX_INSTRUCTIONS} instructions"))
}

struct Machine<'a, 'o> {
    rest: &'a [u8],
    /// Total length.
    length: usize,
    objects: &'o mut Objects,
    stack: Vec<Value>,
    /// Stack heights at the marks.
    marks: Vec<usize>,
    memo: HashMap<u32, Value>,
}

impl<'a> Machine<'a, '_> {
    fn run(&mut self, opcode: u8) -> Result<(), String> {
        match opcode {
            // PROTO, FRAME
            0x80 => {
                let protocol = self.byte()?;
                if protocol > MAX_PROTOCOL {
                    return Err(format!("protocol {protocol} is not supported"));
                }
            }
            0x95 => self.take(8).map(drop)?,
            // Constants
            b'N' => self.stack.push(Value::None),
            0x88 => self.stack.push(Value::Bool(true)),
            0x89 => self.stack.push(Value::Bool(false)),
            // BININT, BININT1, BININT2, LONG1
            b'J' => {
                let int = i32::from_le_bytes(self.array()?);
                self.stack.push(Value::Int(int.into()));
            }
            b'K' => {
                let int = self.byte()?;
                self.stack.push(Value::Int(int.into()));
            }
            b'M' => {
                let int = u16::from_le_bytes(self.array()?);
                self.stack.push(Value::Int(int.into()));
            }
            0x8a => {
                let len = self.byte()?;
                let long = long(self.take(len.into())?)?;
                self.stack.push(long);
            }
            // BINFLOAT
            b'G' => {
                let float = f64::from_be_bytes(self.array()?);
                self.stack.push(Value::Float(float));
            }
            // BINUNICODE, SHORT_BINUNICODE, SHORT_BINSTRING, BINSTRING
            b'X' | b'T' => {
                let len = u32::from_le_bytes(self.array()?);
                self.push_text(len as usize)?;
            }
            0x8c | b'U' => {
                let len = self.byte()?;
                self.push_text(len.into())?;
            }
            // Tuples
            b'(' => self.marks.push(self.stack.len()),
            b')' => self.push_sequence(vec![]),
            b't' => {
                let items = self.pop_to_mark()?;
                self.push_sequence(items);
            }
            0x85..=0x87 => {
                let count = usize::from(opcode - 0x84);
                let start = self.stack.len().checked_sub(count).filter(|&start| start >= self.floor());
                let items = self.stack.split_off(start.ok_or(EMPTY)?);
                self.push_sequence(items);
            }
            // EMPTY_LIST, APPEND, APPENDS
            b']' => self.push_sequence(vec![]),
            b'a' => {
                let item = self.pop()?;
                self.top_sequence()?.push(item);
            }
            b'e' => {
                let items = self.pop_to_mark()?;
                self.top_sequence()?.extend(items);
            }
            // EMPTY_DICT, SETITEM, SETITEMS
            b'}' => self.push_dict(vec![]),
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.top_dict()?.push((key, value));
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                let (pairs, odd) = items.as_chunks::<2>();
                if !odd.is_empty() {
                    return Err("a key of a dictionary has no value".into());
                }
                self.top_dict()?.extend(pairs.iter().map(|&[key, value]| (key, value)));
            }
            // GLOBAL, STACK_GLOBAL
            b'c' => {
                let module = self.line()?;
                let name = self.line()?;
                self.push_global(module, name)?;
            }
            0x93 => {
                let name = self.pop()?;
                let module = self.pop()?;
                let text = |value| self.objects.text(value).map(str::to_owned).ok_or("a name is not a text");
                let (module, name) = (text(module)?, text(name)?);
                self.push_global(&module, &name)?;
            }
            // REDUCE, BUILD, BINPERSID
            b'R' => {
                let arguments = self.pop()?;
                let function = self.pop()?;
                let value = self.objects.call(function, arguments)?;
                self.stack.push(value);
            }
            // The attributes of an ordered dictionary: `_metadata`, the versions of a model's modules.
            b'b' => {
                let _attributes = self.pop()?;
                match self.top()? {
                    Value::Dict(_) => {}
                    value => return Err(format!("{value:?} has no attributes")),
                }
            }
            b'Q' => {
                let id = self.pop()?;
                let storage = self.objects.storage(id)?;
                self.objects.storages.push(storage);
                self.stack.push(Value::Storage(self.objects.storages.len() - 1));
            }
            // BINPUT, LONG_BINPUT, MEMOIZE, BINGET, LONG_BINGET
            b'q' => {
                let at = self.byte()?;
                self.put(at.into())?;
            }
            b'r' => {
                let at = u32::from_le_bytes(self.array()?);
                self.put(at)?;
            }
            0x94 => self.put(u32::try_from(self.memo.len()).map_err(|e| e.to_string())?)?,
            b'h' => {
                let at = self.byte()?;
                self.get(at.into())?;
            }
            b'j' => {
                let at = u32::from_le_bytes(self.array()?);
                self.get(at)?;
            }
            _ => {
                let shown = if opcode.is_ascii_graphic() {
                    format!("{:?}", char::from(opcode))
                } else {
                    format!("{opcode:#04x}")
                };
                return Err(format!("the instruction {shown} is not one that PyTorch writes"));
            }
        }
        Ok(())
    }

    /// Height of the stack below the last mark.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Result<Value, String> {
        if self.stack.len() <= self.floor() {
            return Err(EMPTY.into());
        }
        self.stack.pop().ok_or_else(|| EMPTY.into())
    }

    fn top(&self) -> Result<Value, String> {
        if self.stack.len() <= self.floor() {
            return Err(EMPTY.into());
        }
        self.stack.last().copied().ok_or_else(|| EMPTY.into())
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Value>, String> {
        let mark = self.marks.pop().ok_or("there is no mark")?;
        Ok(self.stack.split_off(mark))
    }

    fn top_sequence(&mut self) -> Result<&mut Vec<Value>, String> {
        match self.top()? {
            Value::Sequence(at) => self.objects.sequences.get_mut(at).ok_or_else(|| EMPTY.into()),
            value => Err(format!("{value:?} is not a list")),
        }
    }

    fn top_dict(&mut self) -> Result<&mut Vec<(Value, Value)>, String> {
        match self.top()? {
            Value::Dict(at) => self.objects.dicts.get_mut(at).ok_or_else(|| EMPTY.into()),
            value => Err(format!("{value:?} is not a dictionary")),
        }
    }

    fn push_sequence(&mut self, items: Vec<Value>) {
        self.objects.sequences.push(items);
        self.stack.push(Value::Sequence(self.objects.sequences.len() - 1));
    }

    fn push_dict(&mut self, items: Vec<(Value, Value)>) {
        self.objects.dicts.push(items);
        self.stack.push(Value::Dict(self.objects.dicts.len() - 1));
    }

    fn push_text(&mut self, len: usize) -> Result<(), String> {
        let text = String::from_utf8(self.take(len)?.to_vec()).map_err(|_| "a text is not UTF-8")?;
        self.objects.texts.push(text);
        self.stack.push(Value::Text(self.objects.texts.len() - 1));
        Ok(())
    }

    fn push_global(&mut self, module: &str, name: &str) -> Result<(), String> {
        let global = Global::named(module, name).ok_or_else(|| {
            format!(
                "it refers to {module}.{name}, but only state dictionaries are read; save `model.state_dict()`"
            )
        })?;
        self.stack.push(Value::Global(global));
        Ok(())
    }

    fn put(&mut self, at: u32) -> Result<(), String> {
        let value = self.top()?;
        self.memo.insert(at, value);
        Ok(())
    }

    fn get(&mut self, at: u32) -> Result<(), String> {
        let value = self.memo.get(&at).copied().ok_or_else(|| format!("nothing is stored under {at}"))?;
        self.stack.push(value);
        Ok(())
    }

    fn byte(&mut self) -> Result<u8, String> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (array, rest) = self.rest.split_first_chunk().ok_or(CUT)?;
        self.rest = rest;
        Ok(*array)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(CUT)?;
        self.rest = rest;
        Ok(taken)
    }

    /// Reads text up to the next line feed.
    fn line(&mut self) -> Result<&'a str, String> {
        let end = self.rest.iter().position(|&byte| byte == b'\n').ok_or(CUT)?;
        let line = self.take(end)?;
        self.byte()?;
        std::str::from_utf8(line).map_err(|_| "a name is not UTF-8".into())
    }
}

const EMPTY: &str = "the stack is empty";
const CUT: &str = "the pickle is cut short";

/// A little-endian integer in two's complement.
fn long(bytes: &[u8]) -> Result<Value, String> {
    if bytes.len() > 16 {
        return Err(format!("an integer of {} bytes", bytes.len()));
    }
    let negative = bytes.last().is_some_and(|&byte| byte >= 0x80);
    let mut all = [if negative { 0xff } else { 0 }; 16];
    all[..bytes.len()].copy_from_slice(bytes);
    let int = i128::from_le_bytes(all);
    Ok(i64::try_from(int).map_or(Value::Long(int as u128), Value::Int))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(bytes: &[u8]) -> Result<Value, String> {
        load(bytes, &mut Objects::default()).map(|(value, _)| value)
    }

    #[test]
    fn constants_are_read() {
        assert_eq!(value(b"\x80\x02J\xff\xff\xff\xff."), Ok(Value::Int(-1)));
        assert_eq!(value(b"\x8a\x02\xe9\x03."), Ok(Value::Int(1001)));
        assert_eq!(value(b"\x8a\x00."), Ok(Value::Int(0)));
        assert_eq!(value(b"G\x3f\xe0\0\0\0\0\0\0."), Ok(Value::Float(0.5)));
        assert_eq!(value(b"\x88."), Ok(Value::Bool(true)));
    }

    #[test]
    fn unsupported_names_are_errors() {
        let error = value(b"cos\nsystem\nX\x02\0\0\0ls\x85R.").unwrap_err();
        assert!(error.contains("os.system") && error.contains("state_dict"), "{error}");
        let error = value(b"\x8c\x05posix\x8c\x06system\x93.").unwrap_err();
        assert!(error.contains("posix.system"), "{error}");
        let error = value(b"i").unwrap_err();
        assert!(error.contains("'i'"), "{error}");
    }

    #[test]
    fn damaged_pickles_are_errors() {
        for bytes in [
            &b""[..],
            b".",
            b"(.",
            b"K\x01(\x85.",
            b"t.",
            b"a.",
            b"NNa.",
            b"}Ns.",
            b"}(Nu.",
            b"h\x00.",
            b"X\xff\xff\xff\xffabc.",
            b"X\x01\0\0\0\xff.",
            b"NR.",
            b"N)R.",
            b"ccollections\nOrderedDict\n(K\x01K\x02tR.",
            b"ctorch\nFloatStorage\n)R.",
            b"NQ.",
            b")Q.",
            b"\x80\x09N.",
            b"\x8a\x20.",
        ] {
            assert!(value(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn cyclic_and_deeply_nested_containers_do_not_recurse() {
        // A list that contains itself.
        assert!(value(b"]q\0h\0a.").is_ok());
        let mut deep = vec![b'N'];
        deep.resize(1_000_000, 0x85);
        deep.push(b'.');
        assert!(value(&deep).is_ok());
    }

    #[test]
    fn attributes_of_an_ordered_dictionary_are_skipped() {
        let bytes = b"ccollections\nOrderedDict\n)R(X\x01\0\0\0aK\x05u}X\x09\0\0\0_metadataNsb.";
        let mut objects = Objects::default();
        let (value, rest) = load(bytes, &mut objects).unwrap();
        assert!(rest.is_empty());
        assert_eq!(objects.item(value, "a"), Some(Value::Int(5)));
    }
}
