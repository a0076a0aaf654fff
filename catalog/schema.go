package catalog

import (
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/toolgrant/toolgrant/strictyaml"
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
	if v, ok := f.Get("query"); ok {
		if t.Query, err = readScalars(v, "query", checkQueryName); err != nil {
			return err
		}
	}
	if v, ok := f.Get("header"); ok {
		if t.Header, err = readScalars(v, "header", checkHeaderName); err != nil {
			return err
		}
	}
	if e, ok := f.Find("body"); ok {
		if !methods[t.Method] {
			return e.Key.Errorf("a tool with the method %s takes no body", t.Method)
		}
		if t.Body, err = schemas.read(e.Value, "/body", true); err != nil {
			return err
		}
	}
	return nil
}

// readScalars reads a mapping of names to schemas of scalars.
func readScalars(n *strictyaml.Node, what string, checkName func(*strictyaml.Node) error) (map[string]*Schema, error) {
	if n.Kind != strictyaml.Mapping {
		return nil, n.Errorf("%q must be %s of names to schemas, not %s", what, strictyaml.Mapping, n.What())
	}
	if len(n.Fields) == 0 {
		return nil, n.Errorf("%q declares nothing; leave it out", what)
	}
	out := map[string]*Schema{}
	folded := map[string]string{}
	for _, f := range n.Fields {
		if err := checkName(f.Key); err != nil {
			return nil, err
		}
		if err := checkFolded(folded, f.Key); err != nil {
			return nil, err
		}
		sf, err := keys(f.Value, "type", "enum", "description")
		if err != nil {
			return nil, err
		}
		s := &Schema{Type: "string"} // with an enum alone
		_, hasType := sf.Find("type")
		if _, hasEnum := sf.Find("enum"); hasType || !hasEnum {
			if s.Type, err = sf.schemaType(); err != nil {
				return nil, err
			}
		}
		if s.Type == "object" || s.Type == "array" || s.Type == "any" {
			return nil, f.Value.Errorf("%s %q: must be of the type string, integer, number or boolean, not %s", what, f.Key.Text, s.Type)
		}
		if err := s.readEnum(sf); err != nil {
			return nil, err
		}
		out[f.Key.Text] = s
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
	node    *strictyaml.Node
}

// read reads a schema of any type, at the place in the input that the pointer
// names. If it is not fixed, the place is inside of an array, and the pointer is
// the array's. Its depth is bounded by the YAML reader.
func (r *schemaReader) read(n *strictyaml.Node, pointer string, fixed bool) (*Schema, error) {
	known := []string{"type", "description", "enum", "required", "properties", "items"}
	if r.arguments {
		known = append(known, "header", "nullable")
	}
	f, err := keys(n, known...)
	if err != nil {
		return nil, err
	}
	s := &Schema{}
	if s.Type, err = f.schemaType(); err != nil {
		return nil, err
	}
	for _, k := range []struct{ word, of string }{{"properties", "object"}, {"required", "object"}, {"items", "array"}} {
		if at, ok := f.Key(k.word); ok && s.Type != k.of {
			return nil, at.Errorf("%q goes with the type %s, not %s", k.word, k.of, s.Type)
		}
	}
	if err := s.readEnum(f); err != nil {
		return nil, err
	}
	if v, ok := f.Get("nullable"); ok {
		if v.Kind != strictyaml.Boolean || s.Type != "string" {
			return nil, v.Errorf("\"nullable\" is true or false, and goes with the type string")
		}
		s.Nullable = v.Yes
	}
	if at, ok := f.Key("header"); ok {
		if err := r.readHeader(s, f, at, pointer, fixed); err != nil {
			return nil, err
		}
	}
	switch s.Type {
	case "object":
		return s, r.readProperties(s, f, pointer, fixed)
	case "array":
		items, ok := f.Get("items")
		if !ok {
			return nil, n.Errorf("an array needs \"items\"")
		}
		s.Items, err = r.read(items, pointer, false)
		return s, err
	case "any":
		v, _ := f.Get("type")
		r.anys = append(r.anys, anyPlace{pointer, v})
	}
	return s, nil
}

func (r *schemaReader) readProperties(s *Schema, f *fields, pointer string, fixed bool) error {
	if v, ok := f.Get("properties"); ok {
		if v.Kind != strictyaml.Mapping {
			return v.Errorf("\"properties\" must be %s of names to schemas, not %s", strictyaml.Mapping, v.What())
		}
		folded := map[string]string{}
		for _, p := range v.Fields {
			if p.Key.Text == "" {
				return p.Key.Errorf("a property needs a name")
			}
			if err := checkFolded(folded, p.Key); err != nil {
				return err
			}
			below := pointer
			if fixed {
				below += "/" + escape(p.Key.Text)
			}
			property, err := r.read(p.Value, below, fixed)
			if err != nil {
				return err
			}
			if s.Properties == nil {
				s.Properties = map[string]*Schema{}
			}
			s.Properties[p.Key.Text] = property
		}
	}
	var err error
	s.Required, err = f.Strings("required", func(v *strictyaml.Node) error {
		if s.Properties[v.Text] == nil {
			return v.Errorf("required property %q is not in \"properties\"", v.Text)
		}
		return nil
	})
	return err
}

// readHeader reads the name of the header that repeats an argument, under the
// rules for x-mcp-header (MCP 2026-07-28, Streamable HTTP, "Schema Extension").
// A tool that breaks one is no tool to clients.
func (r *schemaReader) readHeader(s *Schema, f *fields, at *strictyaml.Node, pointer string, fixed bool) error {
	v, err := f.Text("header")
	if err != nil {
		return err
	}
	switch s.Type {
	case "string", "integer", "boolean":
	default:
		return at.Errorf("\"header\" goes with the types string, integer and boolean, not %s", s.Type)
	}
	if !fixed {
		return at.Errorf("\"header\" goes with what is reached through \"properties\" alone, not with what is in an array")
	}
	if !paramPattern.MatchString(v.Text) {
		return v.Errorf("header %q: must be 1 to 64 characters of an HTTP field name: it is what follows Mcp-Param-", v.Text)
	}
	name := strings.ToLower(v.Text)
	if other, ok := r.headers[name]; ok {
		return v.Errorf("header %q: is already that of the argument %q (case does not matter)", v.Text, other)
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
			return a.node.Errorf("type any: policy cannot see such a value; list %q in the tool's \"opaque\", or give a type", a.pointer)
		}
	}
	return nil
}

// readEnum reads the two keywords that every schema may have.
func (s *Schema) readEnum(f *fields) error {
	if _, ok := f.Find("description"); ok {
		v, err := f.Text("description")
		if err != nil {
			return err
		}
		s.Description = v.Text
	}
	at, ok := f.Key("enum")
	if !ok {
		return nil
	}
	if s.Type != "string" {
		return at.Errorf("\"enum\" goes with the type string, not %s", s.Type)
	}
	var err error
	s.Enum, err = f.Strings("enum", func(*strictyaml.Node) error { return nil })
	if err == nil && len(s.Enum) == 0 {
		return at.Errorf("an empty \"enum\" permits nothing")
	}
	return err
}

func (f *fields) schemaType() (string, error) {
	v, err := f.Text("type")
	if err != nil {
		return "", err
	}
	if !slices.Contains(types, v.Text) {
		return "", v.Errorf("type %q: must be one of %s", v.Text, strings.Join(types, ", "))
	}
	return v.Text, nil
}

func checkQueryName(n *strictyaml.Node) error {
	if !queryPattern.MatchString(n.Text) || strings.ContainsAny(n.Text, queryReserved) {
		return n.Errorf("query parameter %q: must be 1 to 64 visible ASCII characters other than %s", n.Text, queryReserved)
	}
	if strings.EqualFold(n.Text, "access_token") { // RFC 6750, Section 2.3
		return n.Errorf("query parameter %q can never be an input of a tool: clients put tokens there, and a call with it is refused", n.Text)
	}
	return nil
}

func checkHeaderName(n *strictyaml.Node) error {
	forbidden := slices.Contains(forbiddenHeaders, n.Text) ||
		slices.ContainsFunc(forbiddenPrefixes, func(p string) bool { return strings.HasPrefix(n.Text, p) })
	if forbidden {
		return n.Errorf("header %q can never be an input of a tool", n.Text)
	}
	if !headerPattern.MatchString(n.Text) {
		return n.Errorf("header %q: must be a lower-case HTTP field name of at most 64 characters without an underscore", n.Text)
	}
	return nil
}

// checkFolded refuses names that differ only in case: a call that has both is
// refused as ambiguous, so such a schema could never be met.
func checkFolded(seen map[string]string, key *strictyaml.Node) error {
	fold := strings.Map(func(r rune) rune {
		least := r
		for next := unicode.SimpleFold(r); next != r; next = unicode.SimpleFold(next) {
			least = min(least, next)
		}
		return least
	}, key.Text)
	if other, ok := seen[fold]; ok {
		return key.Errorf("names %q and %q differ only in case", other, key.Text)
	}
	seen[fold] = key.Text
	return nil
}
