package cedar

import (
	"bytes"
	"unicode/utf8"
)

// position gives line and column, both from 1, of the literal or name that the
// offset lies in; the column counts characters, as Cedar's parser does.
func (p *parsed) position(offset int) (line, column int) {
	text := p.file.text
	offset = min(offset, len(text))
	begin := bytes.LastIndexByte(text[:offset], '\n') + 1
	at := begin + tokenAt(text[begin:], offset-begin)
	return lineAt(text, offset), utf8.RuneCount(text[begin:at]) + 1
}

// tokenAt gives where in a line the literal or name begins that the offset lies
// in, or the offset if it lies in none. No literal goes over a line's end.
func tokenAt(line []byte, offset int) int {
	for i := 0; i < offset; {
		if line[i] != '"' {
			i++
			continue
		}
		end, err := skipString(line, i)
		if err != nil || offset < end {
			return i
		}
		i = end
	}
	named := func(i int) bool { return i < len(line) && (isWord(line[i]) || line[i] == ':') }
	for named(offset) && offset > 0 && named(offset-1) {
		offset--
	}
	return offset
}
