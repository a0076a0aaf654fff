package main

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"

	"github.com/toolgrant/toolgrant/authz/mcp"
)

// edits are attacks that are made of one good request.
type edits struct {
	s       speaker
	good    attack
	attacks []attack
}

func (s speaker) edits(good attack) *edits { return &edits{s: s, good: good} }

// body adds an attack with another body.
func (e *edits) body(name, body, want string) {
	a := e.good
	a.name, a.body, a.want = name, body, want
	e.attacks = append(e.attacks, a)
}

// change adds one in which a part of the body is another.
func (e *edits) change(name, old, new, want string) {
	e.s.t.Helper()
	body := strings.Replace(e.good.body, old, new, 1)
	if body == e.good.body {
		e.s.t.Fatalf("%s: there is no %s in %s", name, old, body)
	}
	e.body(name, body, want)
}

// metaCall is the granted call as what a meta-tool is to call.
func (s speaker) metaCall() attack {
	a := s.attack("", mcp.ToolsCall, `"name":"call_tool","arguments":{`+theCall+`}`)
	a.fields = s.fields(s.tokens[s.server], mcp.ToolsCall, "call_tool")
	return a
}

// bodies are R01 to R05: what parsers read differently, or not at all.
func (s speaker) bodies() []attack {
	e := s.edits(s.write(""))
	e.body("R00 the granted call", e.good.body, "200")
	e.body("R00 spaced", "\r\n\t"+strings.NewReplacer("{", "{ ", ",", " ,\n").Replace(e.good.body)+" \n", "200")
	e.change("R00 escaped", `"write_note"`, `"write\u005fnote"`, "200")
	e.change("R00 escaped names", `"arguments":{"note"`, `"ar\u0067uments":{"no\u0074e"`, "200")
	e.change("R00 an id that is a text", `"id":`+theID, `"id":"`+theID+`"`, "200")
	e.change("R00 what _meta has beside", `"_meta":{`, `"_meta":{"x":[1,{"y":null}],`, "200")
	all := append(e.attacks, s.twice()...)
	for _, more := range [][]attack{s.otherNames(), s.encodings(), s.otherForms(), s.bounds()} {
		all = append(all, more...)
	}
	return all
}

// twice is R01.
func (s speaker) twice() []attack {
	e := s.edits(s.write(""))
	for name, member := range map[string]string{
		"method": `"method":"tools/list"`, "the same method": `"method":"tools/call"`, "escaped method": `"meth\u006fd":"tools/list"`,
		"jsonrpc": `"jsonrpc":"2.0"`, "id": `"id":1`, "escaped id": `"\u0069d":1`, "params": `"params":{}`, "escaped params": `"p\u0061rams":{}`,
	} {
		e.change("R01 first "+name, `{"jsonrpc"`, "{"+member+`,"jsonrpc"`, ambiguous)
		e.body("R01 last "+name, strings.TrimSuffix(e.good.body, "}")+","+member+"}", ambiguous)
	}
	for name, member := range map[string]string{
		"name": `"name":"delete_note"`, "the same name": `"name":"write_note"`, "escaped name": `"n\u0061me":"delete_note"`,
		"arguments": `"arguments":{"note":"work/b","text":""}`, "escaped arguments": `"argument\u0073":{}`, "_meta": `"_meta":{}`, "escaped _meta": `"\u005fmeta":{}`,
	} {
		e.change("R01 in params, first "+name, `"params":{`, `"params":{`+member+",", ambiguous)
		e.body("R01 in params, last "+name, strings.TrimSuffix(e.good.body, "}}")+","+member+"}}", ambiguous)
	}
	for name, member := range map[string]string{
		"argument": `"note":"work/b"`, "escaped argument": `"not\u0065":"work/b"`, "what nobody declared": `"x":1,"x":1`, "what lies deep": `"x":[{"y":{"z":1,"z":1}}]`,
	} {
		e.change("R01 in arguments, first "+name, `"arguments":{`, `"arguments":{`+member+",", ambiguous)
		e.body("R01 in arguments, last "+name, strings.TrimSuffix(e.good.body, "}}}")+","+member+"}}}", ambiguous)
	}
	e.change("R01 in _meta", `"_meta":{`, `"_meta":{"x":1,"x":1,`, ambiguous)
	e.change("R01 in _meta, deep", `"_meta":{`, `"_meta":{"x":{"y":1,"\u0079":1},`, ambiguous)
	e.change("R01 in _meta, the revision", `"_meta":{`, `"_meta":{"io.modelcontextprotocol/protocolVersion":"2025-11-25","io.modelcontextprotocol\/protocolVersion":"2025-11-25",`, ambiguous)

	inner := s.edits(s.metaCall())
	inner.body("R00 through a meta-tool", inner.good.body, "200")
	for name, member := range map[string]string{
		"name": `"name":"delete_note"`, "escaped name": `"n\u0061me":"delete_note"`, "arguments": `"arguments":{"note":"work/b"}`, "escaped arguments": `"argument\u0073":{}`,
	} {
		inner.change("R01 in a meta-tool's arguments, first "+name, `"arguments":{`, `"arguments":{`+member+",", ambiguous)
		inner.body("R01 in a meta-tool's arguments, last "+name, strings.TrimSuffix(inner.good.body, "}}}")+","+member+"}}}", ambiguous)
	}
	inner.change("R01 an inner argument", `{"note"`, `{"note":"work/b","note"`, ambiguous)
	return append(e.attacks, inner.attacks...)
}

// otherNames is R02.
func (s speaker) otherNames() []attack {
	e := s.edits(s.write(""))
	for _, other := range []string{"Name", "NAME", "naMe", `\u004eame`, `name\u0000`, `\u0000name`, `na\u000ame`, `na\u007fme`} {
		e.change("R02 first "+other, `"name"`, `"`+other+`":"delete_note","name"`, ambiguous)
		e.change("R02 last "+other, `"arguments"`, `"`+other+`":"delete_note","arguments"`, ambiguous)
	}
	for old, others := range map[string][]string{
		"jsonrpc": {"JSONRPC", "jſonrpc"}, "id": {"ID", "Id"}, "method": {"Method", "METHOD"}, "params": {"Params", "paramſ", `param\u017f`},
		"arguments": {"Arguments", "argumentſ", `argument\u017f`}, "note": {"Note", "NOTE"}, "_meta": {"_Meta"},
	} {
		for _, other := range others {
			e.change("R02 beside it, "+other, `"`+old+`"`, `"`+other+`":null,"`+old+`"`, ambiguous)
		}
	}
	e.change("R02 Kelvin sign", `"name"`, `"task":{},"tas`+"\u212a"+`":{},"name"`, ambiguous)
	e.change("R02 Kelvin sign, escaped", `"note"`, `"k":1,"\u212a":1,"note"`, ambiguous)
	e.change("R02 NUL alone", `"note"`, `"note\u0000"`, ambiguous)

	// In place of it: a reader that folds names would run it.
	e.change("R02 alone, Method", `"method"`, `"Method"`, ambiguous) // without a method it is no request, and its id no request's
	for _, other := range []string{"Params", "JSONRPC"} {
		e.change("R02 alone, "+other, `"`+strings.ToLower(other)+`"`, `"`+other+`"`, invalid)
	}
	e.change("R02 alone, ID", `"id"`, `"ID"`, ambiguous)
	for old, others := range map[string][]string{
		"name": {"Name", "NAME", "naMe", "name ", " name", `\ufeffname`, `name\u200b`}, "arguments": {"Arguments", "argumentſ"}, "_meta": {"_Meta"},
	} {
		for _, other := range others {
			e.change("R02 alone, "+other, `"`+old+`"`, `"`+other+`"`, badParams)
		}
	}
	e.change("R02 alone, an argument", `"note"`, `"Note"`, badParams)
	e.change("R02 tas\u212a for task", `"name"`, `"tas`+"\u212a"+`":{},"name"`, badParams)
	for name, old := range map[string]string{"at the top": `{"jsonrpc"`, "in params": `{"_meta"`, "in arguments": `{"note"`} {
		for _, proto := range []string{"__proto__", `\u005f_proto__`} {
			e.change("R02 "+proto+" "+name, old, `{"`+proto+`":{"name":"delete_note"},`+old[1:], invalid)
		}
	}
	e.change("R02 __proto__ in _meta", `"_meta":{`, `"_meta":{"x":[{"__proto__":1}],`, invalid)
	e.change("R02 __proto__ deep in arguments", `{"note"`, `{"x":[[{"__proto__":{}}]],"note"`, invalid)
	e.change("R02 constructor", `{"note"`, `{"constructor":{"prototype":{}},"note"`, denied) // policy does not see it
	other := map[bool]string{true: differs, false: denied}[s.modern()]                       // Mcp-Name says which it is
	e.change("R02 the tool's name in another case", `"write_note"`, `"Write_Note"`, other)
	e.change("R02 the tool's name with a zero", `"write_note"`, `"write_note\u0000"`, other)
	e.change("R02 the method in another case", `"tools/call"`, `"Tools/Call"`, noMethod)
	e.change("R02 the method with a zero", `"tools/call"`, `"tools/call\u0000"`, noMethod)

	inner := s.edits(s.metaCall())
	inner.change("R02 an inner Name", `{"name":"write_note"`, `{"Name":"delete_note","name":"write_note"`, ambiguous)
	inner.change("R02 an inner Name alone", `{"name":"write_note"`, `{"Name":"write_note"`, badParams)
	inner.change("R02 an inner tool in another case", `{"name":"write_note"`, `{"name":"WRITE_NOTE"`, denied)
	return append(e.attacks, inner.attacks...)
}

// encodings is R03.
func (s speaker) encodings() []attack {
	e := s.edits(s.write(""))
	wide := func(order func(r uint16) []byte) string {
		var b bytes.Buffer
		for _, r := range utf16.Encode([]rune(e.good.body)) {
			b.Write(order(r))
		}
		return b.String()
	}
	for name, body := range map[string]string{
		"UTF-8 mark": "\xef\xbb\xbf" + e.good.body, "UTF-16LE": wide(func(r uint16) []byte { return []byte{byte(r), byte(r >> 8)} }),
		"UTF-16LE, mark": "\xff\xfe" + wide(func(r uint16) []byte { return []byte{byte(r), byte(r >> 8)} }),
		"UTF-16BE":       wide(func(r uint16) []byte { return []byte{byte(r >> 8), byte(r)} }),
		"UTF-16BE, mark": "\xfe\xff" + wide(func(r uint16) []byte { return []byte{byte(r >> 8), byte(r)} }),
		"UTF-32LE":       wide(func(r uint16) []byte { return []byte{byte(r), byte(r >> 8), 0, 0} }),
		"UTF-32BE, mark": "\x00\x00\xfe\xff" + wide(func(r uint16) []byte { return []byte{0, 0, byte(r >> 8), byte(r)} }),
		"UTF-7":          strings.ReplaceAll(e.good.body, "{", "+AHs-"),
	} {
		e.body("R03 "+name, body, unparsed)
	}
	for name, text := range map[string]string{
		"invalid": "\xff", "overlong": "\xc0\xaf", "overlong NUL": "\xc0\x80", "cut": "\xe2\x82", "surrogate": "\xed\xa0\x80", "surrogates": "\xed\xa0\xbd\xed\xb8\x80",
		"beyond Unicode": "\xf4\x90\x80\x80", "lone surrogate, escaped": `\ud800`, "low surrogate first": `\udc00\ud800`, "a control character": "\x01", "a line break": "\n", "a zero": "\x00",
	} {
		e.change("R03 "+name, "work/a", "work/a"+text, unparsed)
		e.change("R03 in a name, "+name, `{"note"`, `{"x`+text+`":1,"note"`, unparsed)
		e.change("R03 in the tool's name, "+name, "write_note", "write_note"+text, unparsed)
		e.change("R03 in _meta, "+name, `"_meta":{`, `"_meta":{"x":"`+text+`",`, unparsed)
	}
	return e.attacks
}

// otherForms is R04. A body in two writes, or two frames, is cut in its middle:
// between two objects of one length.
func (s speaker) otherForms() []attack {
	e := s.edits(s.write(""))
	good := e.good.body
	evil := strings.Replace(good, "write_note", "read_note", 1)
	evil = strings.Replace(evil, "}}}", " }}}", 1)
	for name, body := range map[string]string{
		"array": "[" + good + "," + good + "]", "array of one": "[" + good + "]", "empty array": "[]", "array in an array": "[[" + good + "]]", "a string": strconv.Quote("x"), "null": "null",
		"a number": theID, "empty object": "{}",
	} {
		e.body("R04 "+name, body, ambiguous)
	}
	for name, body := range map[string]string{
		"two values": good + good, "a second object in the second half": good + evil, "the second one good": evil + good, "two values, spaced": good + " " + good, "NDJSON": good + "\n" + good + "\n",
		"a record separator": "\x1e" + good, "trailing text": good + "x", "trailing comma": good + ",", "trailing NUL": good + "\x00", "trailing bracket": good + "}", "an array behind": good + "[]",
		"comma inside": strings.TrimSuffix(good, "}") + ",}", "cut": good[:len(good)-1], "comment": good + "/**/", "comment inside": "{//\n" + good[1:], "single quotes": strings.ReplaceAll(good, `"`, `'`),
		"bare name": strings.Replace(good, `"id"`, "id", 1), "form": "method=tools/call&id=1", "blanks": "   ", "an event": "data: " + good + "\n\n", "an array that does not end": "[" + good, "a prefix": ")]}'\n" + good,
	} {
		e.body("R04 "+name, body, unparsed)
	}
	e.body("R04 nothing", "", unparsed)
	e.change("R04 params that are an array", e.params(), `["write_note"]`, badParams)
	e.change("R04 params null", e.params(), `null`, badParams)
	e.change("R04 a request in params", `"name"`, `"method":"tools/call","name"`, badParams)
	e.change("R04 a member beside", `"method"`, `"name":"delete_note","method"`, invalid)
	e.change("R04 method and result", `"method"`, `"result":{},"method"`, invalid)
	e.change("R04 method and error", `"method"`, `"error":null,"method"`, invalid)
	e.change("R04 a method that is an array", `"tools/call"`, `["tools/call"]`, invalid)
	e.change("R04 version 1", `"2.0"`, `"1.0"`, invalid)
	e.change("R04 a version that is a number", `"2.0"`, `2.0`, invalid)
	for _, id := range []string{"null", "true", "{}", "[1]", "1.5", "1e3", "-0", `"` + strings.Repeat("x", 257) + `"`} {
		e.change("R04 id "+id[:min(len(id), 8)], `"id":`+theID, `"id":`+id, ambiguous)
	}
	e.change("R04 a name that is an array", `"write_note"`, `["write_note"]`, badParams)
	e.change("R04 a name that is an object", `"write_note"`, `{"toString":"write_note"}`, badParams)
	e.change("R04 arguments that are a text", `{`+theNote+`}`, strconv.Quote(`{`+theNote+`}`), badParams)
	e.change("R04 arguments that are an array", `{`+theNote+`}`, `[{`+theNote+`}]`, badParams)
	e.change("R04 an argument that is an array", `"work/a"`, `["work/a"]`, badParams)
	e.change("R04 an argument null", `"work/a"`, `null`, badParams)
	e.change("R04 an argument missing", `"note":"work/a",`, ``, badParams)
	e.change("R04 an argument that nobody declared", `{"note"`, `{"shelf":"evil","note"`, denied)
	e.change("R04 to be run as a task", `"name"`, `"task":{"ttl":1},"name"`, badParams)
	if !s.modern() {
		e.change("R04 a retry before there were any", `"name"`, `"inputResponses":{},"name"`, badParams)
	}
	return e.attacks
}

// params are those of the good request.
func (e *edits) params() string {
	_, params, _ := strings.Cut(e.good.body, `"params":`)
	return strings.TrimSuffix(params, "}")
}

// bounds is R05.
func (s speaker) bounds() []attack {
	e := s.edits(s.write(""))
	const limit = 64 << 10 // Envoy holds no more of a body
	for name, n := range map[string]int{"65": 65, "10^3": 1_000, "10^4": 10_000, "3×10^4": 30_000, "10^5": 100_000, "10^6": 1_000_000} {
		for kind, value := range map[string]string{
			"arrays in each other": strings.Repeat("[", n) + strings.Repeat("]", n), "arrays that never end": strings.Repeat("[", 2*n),
			"objects in each other": strings.Repeat(`{"":`, n/4) + "1" + strings.Repeat("}", n/4),
		} {
			want := ambiguous
			switch {
			case len(value) > limit-1_000:
				want = "413"
			case kind == "objects in each other" && n == 65:
				want = denied // 16 are not too deep, and nobody declared them
			}
			e.change(fmt.Sprintf("R05 %s, %s", kind, name), `{"note"`, `{"x":`+value+`,"note"`, want)
		}
		e.body("R05 nothing but "+name+" arrays", strings.Repeat("[", n), map[bool]string{true: "413", false: ambiguous}[n > limit])
	}
	keys := func(n int) string {
		var b strings.Builder
		for i := range n {
			b.WriteString(`"` + strconv.FormatInt(int64(i), 36) + `":1,`)
		}
		return b.String()
	}
	e.change("R05 10^5 names", `{"note"`, `{`+keys(100_000)+`"note"`, "413")
	e.change("R05 5,000 names, one of them twice", `{"note"`, `{`+keys(5_000)+`"3b":2,"note"`, ambiguous)
	e.change("R05 5,000 names that nobody declared", `{"note"`, `{`+keys(5_000)+`"note"`, denied)
	e.change("R05 5,000 names in params", `"name"`, keys(5_000)+`"name"`, badParams)
	e.change("R05 5,000 names in _meta", `"_meta":{`, `"_meta":{`+keys(5_000), "200")
	for number, want := range map[string]string{
		strings.Repeat("9", 400): ambiguous, "0." + strings.Repeat("1", 400): ambiguous, "1e400": ambiguous, "-1e400": ambiguous, "1e-400": ambiguous, "1e10000000": ambiguous,
		"1" + strings.Repeat("0", 50_000): ambiguous, "9007199254740993": ambiguous, "-9007199254740993": ambiguous,
		"NaN": unparsed, "Infinity": unparsed, "-Infinity": unparsed, "0x10": unparsed, "01": unparsed, "+1": unparsed, ".5": unparsed, "1.": unparsed, "-": unparsed, "1e": unparsed, "1_000": unparsed,
	} {
		short := number[:min(len(number), 20)]
		e.change("R05 number "+short, `"work/a"`, number, want)
		e.change("R05 number in _meta, "+short, `"_meta":{`, `"_meta":{"x":`+number+",", want)
		e.change("R05 id "+short, `"id":`+theID, `"id":`+number, want)
	}
	return e.attacks
}
