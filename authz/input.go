package authz

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/toolgrant/toolgrant/authz/mcp"
	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/strictjson"
)

// readInput reads what the tool will be given as one thing that is asked: an object
// {query?, body?, header?} with the parts that the catalogue declares, never
// merged. Undeclared query names and bodies are refused; undeclared headers are
// removed by the answer.
func (d *Door) readInput(req *authv3.CheckRequest, c *call) (grants.Reason, string) {
	raw, why, detail := d.readBytes(req, c)
	if why != grants.None {
		return why, detail
	}
	tool, input := c.tool, map[string]any{}
	args, err := readQuery(c.query, tool.Query)
	if err != nil {
		return grants.Malformed, err.Error()
	}
	if tool.Query != nil {
		input["query"] = args
	}
	if tool.Header != nil {
		head := map[string]any{}
		for name, value := range c.headers.declared {
			if head[name], err = scalar(value, tool.Header[name]); err != nil {
				return grants.Malformed, fmt.Sprintf("header %q: %v", name, err)
			}
		}
		input["header"] = head
	}
	switch {
	case tool.Body != nil:
		if why, detail := readBody(tool, c.headers, raw, input); why != grants.None {
			return why, detail
		}
	case len(raw) > 0:
		return grants.Malformed, "the tool takes no body"
	}
	c.asks = []asked{{action: grants.ActionCall + tool.ID, tool: tool, input: input}}
	return grants.None, ""
}

// readBytes takes the body, and refuses one that is not what the tool gets.
func (d *Door) readBytes(req *authv3.CheckRequest, c *call) ([]byte, grants.Reason, string) {
	h, http := c.headers, req.GetAttributes().GetRequest().GetHttp()
	raw := http.GetRawBody()
	switch {
	case h.bad != "":
		return nil, grants.Malformed, h.bad
	case h.partial:
		return nil, grants.TooLarge, "only a part of the body came to be checked"
	case http.GetBody() != "":
		return nil, grants.Malformed, "Envoy sent the body as text, which changes bytes: set pack_as_bytes: true"
	case len(raw) > d.cfg.MaxBody:
		return nil, grants.TooLarge, fmt.Sprintf("the body is over %d bytes", d.cfg.MaxBody)
	case h.length != "" && h.length != strconv.Itoa(len(raw)):
		return nil, grants.Malformed, "content-length is not the length of the body"
	}
	return raw, grants.None, ""
}

func readBody(tool *catalog.Tool, h headers, raw []byte, input map[string]any) (grants.Reason, string) {
	if h.encoded {
		return grants.Encoding, "a content-encoding is not read: send the body as it is"
	}
	if len(h.contentType) != 1 || !mcp.IsJSON(h.contentType[0]) {
		return grants.Encoding, "the body's content-type is application/json, in UTF-8"
	}
	body, err := strictjson.Parse(raw, strictjson.Limits{})
	if err != nil {
		return grants.Malformed, "body: " + err.Error()
	}
	if err := conform(body, tool.Body, "/body", tool.Opaque); err != nil {
		return grants.Mismatch, err.Error()
	}
	input["body"] = body
	return grants.None, ""
}

// readQuery reads declared names, once each. What servers read differently is
// refused: a bare name, an empty pair, ";" and "+" (a blank to some, a plus to
// others), escapes that are not UTF-8 or hide control characters.
func readQuery(query string, declared map[string]*catalog.Schema) (map[string]any, error) {
	args := map[string]any{}
	if query == "" {
		return args, nil
	}
	for _, pair := range strings.Split(query, "&") {
		rawName, rawValue, ok := strings.Cut(pair, "=")
		if !ok || rawName == "" {
			return nil, errors.New("query: write each parameter as name=value")
		}
		if i := strings.IndexFunc(pair, notQuery); i >= 0 {
			return nil, fmt.Errorf("query: %q is read differently by different servers: write it as a percent escape", pair[i])
		}
		name, err1 := unescape(rawName)
		value, err2 := unescape(rawValue)
		if err1 != nil || err2 != nil {
			return nil, errors.New("query: a percent escape is not one of printable UTF-8")
		}
		schema, ok := declared[name]
		if !ok {
			return nil, fmt.Errorf("query: %q is not declared by the tool", cut(name))
		}
		if _, twice := args[name]; twice {
			return nil, fmt.Errorf("query: %q came twice", name)
		}
		v, err := scalar(value, schema)
		if err != nil {
			return nil, fmt.Errorf("query: %q: %w", name, err)
		}
		args[name] = v
	}
	return args, nil
}

// notQuery is what a query may not hold as it is: what RFC 3986, Section 3.4
// does not allow there, and "+" and ";".
func notQuery(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-._~%!$'()*,=:@/?", r))
}

func unescape(s string) (string, error) {
	out, err := url.PathUnescape(s)
	if err != nil {
		return "", err
	}
	if !utf8.ValidString(out) || strings.ContainsFunc(out, func(r rune) bool { return r < 0x20 || r == 0x7f }) {
		return "", errors.New("not printable UTF-8")
	}
	return out, nil
}

// plainNumber is the one spelling of a number outside JSON. Tools read it by
// whatever their language offers, and many of those stop at an exponent:
// "1000000e-6" is 1 to us and a million to parseInt.
var plainNumber = regexp.MustCompile(`^(0|-?[1-9][0-9]*|-?(0|[1-9][0-9]*)\.[0-9]*[1-9])$`)

// scalar reads a text as what its schema says that it is, in the one way of
// writing it.
func scalar(text string, s *catalog.Schema) (any, error) {
	var v any = text
	if s.Type != "string" {
		if (s.Type == "integer" || s.Type == "number") && !plainNumber.MatchString(text) {
			return nil, errors.New("write the number in plain digits: no exponent, no plus, no zeros before it or at its end")
		}
		parsed, err := strictjson.Parse([]byte(text), strictjson.Limits{})
		if err != nil || strings.TrimSpace(text) != text {
			return nil, fmt.Errorf("not a JSON %s", s.Type)
		}
		v = parsed
	}
	return v, conform(v, s, "", nil)
}

// conform checks what the catalogue declares of a value: type, enum, required
// members. Undeclared members are left to policy, which refuses what it cannot
// see (Unrepresentable); opaque ones may be anything.
func conform(v any, s *catalog.Schema, at string, opaque []string) error {
	if slices.Contains(opaque, at) {
		return nil
	}
	where := at
	if where == "" {
		where = "value"
	}
	ok := false
	switch x := v.(type) {
	case string:
		ok = s.Type == "string"
		if ok && len(s.Enum) > 0 && !slices.Contains(s.Enum, x) {
			return fmt.Errorf("%s: not one of %s", where, strings.Join(s.Enum, ", "))
		}
		if ok && s.Nullable && readAsJSON(x) {
			return fmt.Errorf("%s: a text that some servers read as JSON: null, an array or an object", where)
		}
	case bool:
		ok = s.Type == "boolean"
	case strictjson.Number:
		_, integral := x.Int64()
		ok = s.Type == "number" || s.Type == "integer" && integral
	case []any:
		ok = s.Type == "array"
		if ok && s.Items != nil {
			for i, item := range x {
				if err := conform(item, s.Items, at+"/"+strconv.Itoa(i), opaque); err != nil {
					return err
				}
			}
		}
	case map[string]any:
		ok = s.Type == "object"
		if ok {
			for _, name := range s.Required {
				if _, there := x[name]; !there {
					return fmt.Errorf("%s: %q is missing", where, name)
				}
			}
			for name, member := range x {
				child, declared := s.Properties[name]
				if !declared {
					continue
				}
				if err := conform(member, child, at+"/"+escapePointer(name), opaque); err != nil {
					return err
				}
			}
		}
	}
	if !ok {
		return fmt.Errorf("%s: not of type %s", where, s.Type)
	}
	return nil
}

// readAsJSON reports whether a server may take the text for the null, array or object
// that it writes: the Python SDK (1.x and 2.x) decodes a text whose parameter is more
// than a str, and keeps what is no scalar. Python reads NaN and Infinity, too.
func readAsJSON(text string) bool {
	text = strings.Trim(text, " \t\r\n")
	if text == "null" {
		return true
	}
	if !strings.HasPrefix(text, "[") && !strings.HasPrefix(text, "{") {
		return false
	}
	return json.Valid([]byte(text)) || strings.Contains(text, "NaN") || strings.Contains(text, "Infinity")
}

// escapePointer writes a name as a JSON Pointer token (RFC 6901, Section 3).
func escapePointer(name string) string {
	return strings.ReplaceAll(strings.ReplaceAll(name, "~", "~0"), "/", "~1")
}
