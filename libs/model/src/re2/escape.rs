//! Escaped single characters.

use crate::re2::error::RegexError;
use crate::re2::scanner::RegexScanner;

impl RegexScanner<'_> {
    /// Parses an escape sequence that denotes one character. The result may be one half of a surrogate pair.
    pub(super) fn escape(&mut self) -> Result<u32, RegexError> {
        let start = self.at;
        self.accept("\\");
        let Some(c) = self.next() else {
            return Err(RegexError::new("trailing backslash at end of expression", ""));
        };
        let octal = |c: Option<char>| c.and_then(|c| c.to_digit(8));
        match c {
            // A single digit would be a back-reference, which RE2 does not support.
            '1'..='7' if octal(self.peek()).is_none() => {}
            '0'..='7' => {
                let mut code = u32::from(c) - u32::from('0');
                for _ in 0..2 {
                    let Some(digit) = octal(self.peek()) else { break };
                    self.next();
                    code = code * 8 + digit;
                }
                return Ok(code);
            }
            'x' => {
                if let Some(code) = self.hex() {
                    return Ok(code);
                }
            }
            'a' => return Ok(0x07),
            'f' => return Ok(0x0c),
            'n' => return Ok(0x0a),
            'r' => return Ok(0x0d),
            't' => return Ok(0x09),
            'v' => return Ok(0x0b),
            c if c.is_ascii() && !c.is_ascii_alphanumeric() => return Ok(u32::from(c)),
            _ => {}
        }
        self.fail("invalid escape sequence", start)
    }

    /// Two hexadecimal digits, or any number of them in braces.
    fn hex(&mut self) -> Option<u32> {
        let first = self.next()?;
        if first != '{' {
            let second = self.next()?;
            return Some(first.to_digit(16)? * 16 + second.to_digit(16)?);
        }
        let mut code = None;
        loop {
            let c = self.next()?;
            if c == '}' {
                return code;
            }
            code = Some(code.unwrap_or(0) * 16 + c.to_digit(16)?);
            code.filter(|code| *code <= u32::from(char::MAX))?;
        }
    }
}
