//! Names of functions by their addresses, from the files of a running program.

use std::collections::HashMap;
use std::path::PathBuf;

use addr2line::Loader;
use ringmain_control::api::Module;

/// Names of functions of a process by address. What is read of its files goes away with it.
pub(crate) struct Symbols {
    pid: u32,
    modules: Vec<Module>,
    loaders: HashMap<String, Option<Loader>>,
    known: HashMap<u64, Vec<String>>,
    /// Files without names, and why.
    pub(crate) notes: Vec<String>,
}

impl Symbols {
    /// Of a process with these mappings of code.
    pub(crate) fn new(pid: u32, modules: Vec<Module>) -> Self {
        Self { pid, modules, loaders: HashMap::new(), known: HashMap::new(), notes: Vec::new() }
    }

    /// Of this process.
    pub(crate) fn own() -> Self {
        Self::new(std::process::id(), ringmain_control::profile::own_modules())
    }

    /// The functions of a stack of return addresses, both innermost first.
    pub(crate) fn stack(&mut self, addresses: &[u64]) -> Vec<String> {
        let mut names = Vec::new();
        for (ix, address) in addresses.iter().enumerate() {
            // Below the innermost are addresses that calls return to: the call is before.
            let at = if ix == 0 { *address } else { address.saturating_sub(1) };
            names.extend_from_slice(self.at(at));
        }
        names
    }

    /// The functions at an address, innermost first: several where calls were inlined.
    fn at(&mut self, address: u64) -> &[String] {
        if !self.known.contains_key(&address) {
            let found = self.look_up(address);
            self.known.insert(address, found);
        }
        &self.known[&address]
    }

    fn look_up(&mut self, address: u64) -> Vec<String> {
        let within = |m: &&Module| (m.start..m.end).contains(&address);
        let Some(module) = self.modules.iter().find(within) else {
            return vec!["[unknown]".to_owned()];
        };
        let (pid, notes) = (self.pid, &mut self.notes);
        let loader = self.loaders.entry(module.path.clone()).or_insert_with(|| {
            let loaded = load(pid, &module.path);
            loaded.map_err(|why| notes.push(format!("{}: no names: {why}", module.path))).ok()
        });
        let names = loader.as_ref().map(|l| names(l, address - module.base)).unwrap_or_default();
        if names.is_empty() { vec![unnamed(&module.path)] } else { names }
    }
}

/// For an address without a name: the file that it is in.
fn unnamed(path: &str) -> String {
    format!("[{}]", path.rsplit('/').next().unwrap_or(path).trim_matches(['[', ']']))
}

/// Opens a file of the broker's as the broker sees it. Its program is found even if it was replaced or deleted since.
fn load(pid: u32, path: &str) -> Result<Loader, String> {
    if path.starts_with('[') {
        return Err("it is no file".to_owned());
    }
    let own = PathBuf::from(format!("/proc/{pid}/exe"));
    let is_own = std::fs::read_link(&own).is_ok_and(|target| target.as_os_str() == path);
    let of_broker = if is_own { own } else { PathBuf::from(format!("/proc/{pid}/root{path}")) };
    Loader::new(&of_broker).or_else(|_| Loader::new(path)).map_err(|e| e.to_string())
}

/// The functions at an address of a file, innermost first. Debug information made of lines alone names functions without
/// their modules. The symbol table knows those of the outermost; of what was inlined into it the file is told.
fn names(loader: &Loader, address: u64) -> Vec<String> {
    let mut names = Vec::new();
    if let Ok(mut frames) = loader.find_frames(address) {
        while let Ok(Some(frame)) = frames.next() {
            let Some(name) = frame.function.as_ref().and_then(|f| f.raw_name().ok()) else {
                continue;
            };
            let file = frame.location.and_then(|l| l.file).and_then(|f| f.rsplit('/').next());
            names.push(match (function(&name), file) {
                (name, Some(file)) if !name.contains("::") => format!("{name} ({file})"),
                (name, _) => name,
            });
        }
    }
    if let Some(symbol) = loader.find_symbol(address) {
        names.pop();
        names.push(function(symbol));
    }
    names
}

/// The name of a function for people: demangled, without the hash at its end and without the types that it was made
/// for, which are longer than all the rest.
pub(crate) fn function(symbol: &str) -> String {
    let name = without_types(&format!("{:#}", rustc_demangle::demangle(symbol)));
    // perf demangles by itself and leaves the hash.
    match name.rsplit_once("::h") {
        Some((name, hash)) if hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit()) => {
            name.to_owned()
        }
        _ => name,
    }
}

/// `a::B<C>::d::<E>` as `a::B::d`. What a name begins with, as in `<A as B>::c`, stays.
fn without_types(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let (mut depth, mut before) = (0_u32, ' ');
    for c in name.chars() {
        let of_item = before.is_alphanumeric() || "_}:>".contains(before);
        match c {
            '<' if depth > 0 || of_item && !out.is_empty() => {
                if depth == 0 && out.ends_with("::") {
                    out.truncate(out.len() - 2);
                }
                depth += 1;
            }
            // The arrow of a function's type ends nothing.
            '>' if depth > 0 && before != '-' => depth -= 1,
            _ if depth == 0 => out.push(c),
            _ => {}
        }
        before = c;
    }
    // What does not close was no list of types, as in `operator<`.
    if depth == 0 { out } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_of_this_process_have_names() {
        let here = functions_of_this_process_have_names as fn() as *const () as u64;
        let names = Symbols::own().stack(&[here]);
        assert!(
            names.iter().any(|n| n.contains("functions_of_this_process_have_names")),
            "{names:?}"
        );
    }

    #[test]
    fn names_of_functions_are_demangled_without_hash() {
        let mangled = "_ZN15ringmain_shards7reactor3net7NetTask4turn17h0123456789abcdefE";
        assert_eq!(function(mangled), "ringmain_shards::reactor::net::NetTask::turn");
        assert_eq!(function("a::b::h0123456789abcdef"), "a::b");
        assert_eq!(function("__schedule"), "__schedule");
        for (long, short) in [
            ("a::RawTask<F,R,S>::run", "a::RawTask::run"),
            ("call_once<c::{closure_env#0}<A<B>>, fn(u8) -> C<D>>", "call_once"),
            ("copy::<[u8; 4]>", "copy"),
            ("<alloc::Box<dyn F<(), Output = ()>> as F<()>>::call", "<alloc::Box as F>::call"),
            ("{closure#1}<A>", "{closure#1}"),
            ("operator<", "operator<"),
        ] {
            assert_eq!(function(long), short);
        }
    }
}
