//! Paths in a macro's or an attribute's arguments, which may be any tokens.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::ext::IdentExt as _;

/// A path or a method that tokens use.
pub(super) enum Used {
    Path(Vec<String>),
    /// A method that is called on `self`.
    SelfMethod(String),
}

/// The paths and methods that the tokens use, with their lines.
pub(super) fn uses(stream: TokenStream) -> Vec<(Used, usize)> {
    let tokens: Vec<_> = stream.into_iter().collect();
    let mut uses = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let mut next = at + 1;
        match &tokens[at] {
            TokenTree::Group(group) => uses.extend(self::uses(group.stream())),
            TokenTree::Literal(literal) => {
                let path = path_in_literal(&literal.to_string()).map(Used::Path);
                uses.extend(path.map(|path| (path, literal.span().start().line)));
            }
            TokenTree::Ident(first) => {
                let (path, after) = path_at(&tokens, at);
                let line = first.span().start().line;
                let method = method_on_self(&tokens, &path, after).map(Used::SelfMethod);
                uses.extend(method.map(|method| (method, line)));
                let is_member = at > 0 && is_punct(&tokens[at - 1], '.');
                if !is_member {
                    uses.push((Used::Path(path), line));
                }
                next = after;
            }
            TokenTree::Punct(_) => {}
        }
        at = next;
    }
    uses
}

/// The path that starts at an identifier, and where it ends.
fn path_at(tokens: &[TokenTree], start: usize) -> (Vec<String>, usize) {
    let mut path = Vec::new();
    let mut at = start;
    while let Some(TokenTree::Ident(ident)) = tokens.get(at) {
        path.push(ident.unraw().to_string());
        at += 1;
        let colons = tokens.get(at..at + 2);
        if !colons.is_some_and(|colons| colons.iter().all(|token| is_punct(token, ':'))) {
            break;
        }
        if !matches!(tokens.get(at + 2), Some(TokenTree::Ident(_))) {
            break;
        }
        at += 2;
    }
    (path, at)
}

/// `method` where the tokens are `self.method(…)`.
fn method_on_self(tokens: &[TokenTree], path: &[String], after: usize) -> Option<String> {
    match (path, tokens.get(after..after + 3)?) {
        ([own], [TokenTree::Punct(dot), TokenTree::Ident(method), TokenTree::Group(arguments)])
            if own == "self"
                && dot.as_char() == '.'
                && arguments.delimiter() == Delimiter::Parenthesis =>
        {
            Some(method.unraw().to_string())
        }
        _ => None,
    }
}

/// A string such as serde's `with = "crate::units::seconds"`.
fn path_in_literal(literal: &str) -> Option<Vec<String>> {
    let text = literal.strip_prefix('"')?.strip_suffix('"')?;
    let path: Vec<_> = text.split("::").map(str::to_owned).collect();
    let is_path = path.len() > 1
        && path
            .iter()
            .all(|segment| syn::parse_str::<syn::Ident>(segment).is_ok() || is_keyword(segment));
    is_path.then_some(path)
}

fn is_keyword(segment: &str) -> bool {
    matches!(segment, "crate" | "self" | "super" | "Self")
}

fn is_punct(token: &TokenTree, character: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == character)
}
