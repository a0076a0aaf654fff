package catalog

import (
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// Schema says what one value is: the subset of JSON Schema in which the
// catalogue describes inputs. What it does not declare, policy cannot see.
type Schema struct {
	Type        string             // object, string, integer, number, boolean or array; "any" at an opaque pointer alone
	Description string             // for people and models; decides nothing
	Enum        []string           // strings only; sorted; empty: any
	Required    []string           // of an object: names out of Properties; sorted
	Properties  map[string]*Schema // of an object
	Items       *Schema            // of an array: its elements
	Header      string             `json:",omitempty"` // of an argument that clients repeat in Mcp-Param-HEADER (x-mcp-header); lower case
	Nullable    bool               `json:",omitempty"` // of a text: the server also takes null for it, and some servers read a text that is JSON as what it says
}

var (
	// RFC 9110, Section 5.6.2: token; without upper case and the underscore,
	// because servers fold "x_a", "X-A" and "x-a" into one variable.
	headerPattern = regexp.MustCompile("^[a-z0-9!#$%&'*+.^`|~-]{1,64}$")
	// Visible ASCII but for what delimits or escapes in a query.
	queryPattern = regexp.MustCompile("^[!-~]{1,64}$")
)

// paramPattern is RFC 9110, Section 5.6.2: token.
var paramPattern = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}$")

const queryReserved = "#%&+;="

// forbiddenHeaders can never be inputs of a tool: they carry credentials,
// frame the message, are consumed on the way, or make some servers run another
// route than the one that was decided on.
var (
	forbiddenHeaders = []string{
		"authorization", "cookie", "set-cookie", "dpop",
		"host", "content-length", "content-type", "content-encoding", "transfer-encoding",
		"connection", "keep-alive", "te", "trailer", "upgrade", "expect",
		"forwarded", "via", "x-real-ip", "x-request-id", "x-grant",
		"x-original-url", "x-original-method", "x-rewrite-url",
		"x-http-method", "x-http-method-override", "x-method-override",
	}
	forbiddenPrefixes = []string{":", "x-grant-", "x-envoy-", "x-forwarded-", "proxy-"}
)

var types = []string{"object", "string", "integer", "number", "boolean", "array", "any"}

// readInput reads what the tool takes: "query", "header" and "body".
func (t *Tool) readInput(f *fields, schemas *schemaReader) error {
	var err error
	if v, ok := f.get("query"); ok {
		if t.Query, err = readScalars(v, "query", checkQueryName); err != nil {
			return err
		}
	}
	if v, ok := f.get("header"); ok {
		if t.Header, err = readScalars(v, "header", checkHeaderName); err != nil {
			return err
		}
	}
	if e, ok := f.find("body"); ok {
		if !methods[t.Method] {
			return e.key.errorf("a tool with the method %s takes no body", t.Method)
		}
		if t.Body, err = schemas.read(e.value, "/body", true); err != nil {
			return err
		}
	}
	return nil
}

// readScalars reads a mapping of names to schemas of scalars.
func readScalars(n *node, what string, checkName func(*node) error) (map[string]*Schema, error) {
	if n.kind != mapping {
		return nil, n.errorf("%q must be %s of names to schemas, not %s", what, mapping, n.kind)
	}
	if len(n.fields) == 0 {
		return nil, n.errorf("%q declares nothing; leave it out", what)
	}
	out := map[string]*Schema{}
	folded := map[string]string{}
	for _, f := range n.fields {
		if err := checkName(f.key); err != nil {
			return nil, err
		}
		if err := checkFolded(folded, f.key); err != nil {
			return nil, err
		}
		sf, err := f.value.keys("type", "enum", "description")
		if err != nil {
			return nil, err
		}
		s := &Schema{Type: "string"} // with an enum alone
		_, hasType := sf.find("type")
		if _, hasEnum := sf.find("enum"); hasType || !hasEnum {
			if s.Type, err = sf.schemaType(); err != nil {
				return nil, err
			}
		}
		if s.Type == "object" || s.Type == "array" || s.Type == "any" {
			return nil, f.value.errorf("%s %q: must be of the type string, integer, number or boolean, not %s", what, f.key.text, s.Type)
		}
		if err := s.readEnum(sf); err != nil {
			return nil, err
		}
		out[f.key.text] = s
	}
	return out, nil
}

// schemaReader reads the schemas of one tool's input.
type schemaReader struct {
	arguments bool              // they are of an MCP tool's arguments, which can be repeated in headers
	headers   map[string]string // lower-case header name -> pointer of the argument
	anys      []anyPlace
}

// anyPlace is where a schema has the type any: below the pointer, which leads to
// the outermost array around it, or to itself.
type anyPlace struct {
	pointer string
	node    *node
}

// read reads a schema of any type, at the place in the input that the pointer
// names. If it is not fixed, the place is inside of an array, and the pointer is
// the array's. Its depth is bounded by the YAML reader.
func (r *schemaReader) read(n *node, pointer string, fixed bool) (*Schema, error) {
	known := []string{"type", "description", "enum", "required", "properties", "items"}
	if r.arguments {
		known = append(known, "header", "nullable")
	}
	f, err := n.keys(known...)
	if err != nil {
		return nil, err
	}
	s := &Schema{}
	if s.Type, err = f.schemaType(); err != nil {
		return nil, err
	}
	for _, k := range []struct{ word, of string }{{"properties", "object"}, {"required", "object"}, {"items", "array"}} {
		if at, ok := f.key(k.word); ok && s.Type != k.of {
			return nil, at.errorf("%q goes with the type %s, not %s", k.word, k.of, s.Type)
		}
	}
	if err := s.readEnum(f); err != nil {
		return nil, err
	}
	if v, ok := f.get("nullable"); ok {
		if v.kind != boolean || s.Type != "string" {
			return nil, v.errorf("\"nullable\" is true or false, and goes with the type string")
		}
		s.Nullable = v.yes
	}
	if at, ok := f.key("header"); ok {
		if err := r.readHeader(s, f, at, pointer, fixed); err != nil {
			return nil, err
		}
	}
	switch s.Type {
	case "object":
		return s, r.readProperties(s, f, pointer, fixed)
	case "array":
		items, ok := f.get("items")
		if !ok {
			return nil, n.errorf("an array needs \"items\"")
		}
		s.Items, err = r.read(items, pointer, false)
		return s, err
	case "any":
		v, _ := f.get("type")
		r.anys = append(r.anys, anyPlace{pointer, v})
	}
	return s, nil
}

func (r *schemaReader) readProperties(s *Schema, f *fields, pointer string, fixed bool) error {
	if v, ok := f.get("properties"); ok {
		if v.kind != mapping {
			return v.errorf("\"properties\" must be %s of names to schemas, not %s", mapping, v.kind)
		}
		folded := map[string]string{}
		for _, p := range v.fields {
			if p.key.text == "" {
				return p.key.errorf("a property needs a name")
			}
			if err := checkFolded(folded, p.key); err != nil {
				return err
			}
			below := pointer
			if fixed {
				below += "/" + escape(p.key.text)
			}
			property, err := r.read(p.value, below, fixed)
			if err != nil {
				return err
			}
			if s.Properties == nil {
				s.Properties = map[string]*Schema{}
			}
			s.Properties[p.key.text] = property
		}
	}
	var err error
	s.Required, err = f.strings("required", func(v *node) error {
		if s.Properties[v.text] == nil {
			return v.errorf("required property %q is not in \"properties\"", v.text)
		}
		return nil
	})
	return err
}

// readHeader reads the name of the header that repeats an argument, under the
// rules for x-mcp-header (MCP 2026-07-28, Streamable HTTP, "Schema Extension").
// A tool that breaks one is no tool to clients.
func (r *schemaReader) readHeader(s *Schema, f *fields, at *node, pointer string, fixed bool) error {
	v, err := f.text("header")
	if err != nil {
		return err
	}
	switch s.Type {
	case "string", "integer", "boolean":
	default:
		return at.errorf("\"header\" goes with the types string, integer and boolean, not %s", s.Type)
	}
	if !fixed {
		return at.errorf("\"header\" goes with what is reached through \"properties\" alone, not with what is in an array")
	}
	if !paramPattern.MatchString(v.text) {
		return v.errorf("header %q: must be 1 to 64 characters of an HTTP field name: it is what follows Mcp-Param-", v.text)
	}
	name := strings.ToLower(v.text)
	if other, ok := r.headers[name]; ok {
		return v.errorf("header %q: is already that of the argument %q (case does not matter)", v.text, other)
	}
	if r.headers == nil {
		r.headers = map[string]string{}
	}
	r.headers[name], s.Header = pointer, name
	return nil
}

// checkAny wants every value of the type any to be opaque.
func (r *schemaReader) checkAny(opaque []string) error {
	for _, a := range r.anys {
		if !covered(opaque, a.pointer) {
			return a.node.errorf("type any: policy cannot see such a value; list %q in the tool's \"opaque\", or give a type", a.pointer)
		}
	}
	return nil
}

// readEnum reads the two keywords that every schema may have.
func (s *Schema) readEnum(f *fields) error {
	if _, ok := f.find("description"); ok {
		v, err := f.text("description")
		if err != nil {
			return err
		}
		s.Description = v.text
	}
	at, ok := f.key("enum")
	if !ok {
		return nil
	}
	if s.Type != "string" {
		return at.errorf("\"enum\" goes with the type string, not %s", s.Type)
	}
	var err error
	s.Enum, err = f.strings("enum", func(*node) error { return nil })
	if err == nil && len(s.Enum) == 0 {
		return at.errorf("an empty \"enum\" permits nothing")
	}
	return err
}

func (f *fields) schemaType() (string, error) {
	v, err := f.text("type")
	if err != nil {
		return "", err
	}
	if !slices.Contains(types, v.text) {
		return "", v.errorf("type %q: must be one of %s", v.text, strings.Join(types, ", "))
	}
	return v.text, nil
}

func checkQueryName(n *node) error {
	if !queryPattern.MatchString(n.text) || strings.ContainsAny(n.text, queryReserved) {
		return n.errorf("query parameter %q: must be 1 to 64 visible ASCII characters other than %s", n.text, queryReserved)
	}
	if strings.EqualFold(n.text, "access_token") { // RFC 6750, Section 2.3
		return n.errorf("query parameter %q can never be an input of a tool: clients put tokens there, and a call with it is refused", n.text)
	}
	return nil
}

func checkHeaderName(n *node) error {
	forbidden := slices.Contains(forbiddenHeaders, n.text) ||
		slices.ContainsFunc(forbiddenPrefixes, func(p string) bool { return strings.HasPrefix(n.text, p) })
	if forbidden {
		return n.errorf("header %q can never be an input of a tool", n.text)
	}
	if !headerPattern.MatchString(n.text) {
		return n.errorf("header %q: must be a lower-case HTTP field name of at most 64 characters without an underscore", n.text)
	}
	return nil
}

// checkFolded refuses names that differ only in case: a call that has both is
// refused as ambiguous, so such a schema could never be met.
func checkFolded(seen map[string]string, key *node) error {
	fold := strings.Map(func(r rune) rune {
		least := r
		for next := unicode.SimpleFold(r); next != r; next = unicode.SimpleFold(next) {
			least = min(least, next)
		}
		return least
	}, key.text)
	if other, ok := seen[fold]; ok {
		return key.errorf("names %q and %q differ only in case", other, key.text)
	}
	seen[fold] = key.text
	return nil
}
