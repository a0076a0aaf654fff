package mcp

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	jsonexp "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	sdk "github.com/modelcontextprotocol/go-sdk/mcp"
	segmentio "github.com/segmentio/encoding/json"

	"github.com/toolgrant/toolgrant/strictjson"
)

// reading is how one reader understands a message: the RFC 8785 texts, by
// doubles, of [method, name, uri, taskId, arguments, id] and of the message.
type reading struct{ picked, whole string }

// Cases of TestReadersAgree; TOOLGRANT_MCP_CASES says otherwise.
const (
	defaultCases = 20_000
	shortCases   = 2_000
)

func caseCount(t *testing.T) int {
	t.Helper()
	text := os.Getenv("TOOLGRANT_MCP_CASES")
	switch {
	case text == "" && testing.Short():
		return shortCases
	case text == "":
		return defaultCases
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("TOOLGRANT_MCP_CASES=%s is no count", text)
	}
	return n
}

// TestReadersAgree: what Read accepts, Python, Node and the Go SDK read as Read
// does. Messages are good ones with up to two changes, each of which some reader
// is known to stumble over.
func TestReadersAgree(t *testing.T) {
	cases := caseCount(t)
	python, node := peer(t, "python3"), peer(t, "node")
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	readers := map[string]func(*testing.T, [][]byte) []reading{
		"Python": func(t *testing.T, bodies [][]byte) []reading { return run(t, bodies, python, "testdata/reader.py") },
		"Node":   func(t *testing.T, bodies [][]byte) []reading { return run(t, bodies, node, "testdata/reader.mjs") },
		"Go SDK": func(_ *testing.T, bodies [][]byte) []reading { return readAll(bodies, sdkReads) },
	}

	s := world()
	strict := func(in HTTPRequest) (reading, bool) {
		m, no := Read(s, in)
		if no != nil {
			return reading{}, false
		}
		return ours(t, m, in.Body), true
	}
	accepted := compare(t, seed, cases, strict, readers, func(in HTTPRequest, reader string, ours, theirs reading) {
		t.Errorf("%s reads\n%q\nas\n%v\nand we as\n%v", reader, in.Body, theirs, ours)
	})
	t.Logf("%d of %d cases accepted", accepted, cases)
	if accepted*5 < cases {
		t.Errorf("%d of %d cases accepted: too few to say much", accepted, cases)
	}

	// That the test sees something: readers that do what others have done.
	for name, weak := range weaknesses {
		t.Run(name, func(t *testing.T) {
			caught := 0
			compare(t, seed, shortCases, func(in HTTPRequest) (reading, bool) {
				body, ok := weak(in.Body)
				if !ok {
					return reading{}, false
				}
				in.Body = body
				r, ok := strict(in)
				r.whole = ""
				return r, ok
			}, readers, func(HTTPRequest, string, reading, reading) { caught++ })
			if caught == 0 {
				t.Error("a reader with this weakness is not told from a good one")
			}
		})
	}
}

// weaknesses are what the body is taken for, before it is read strictly.
var weaknesses = map[string]func(body []byte) ([]byte, bool){
	// encoding/json matches names without regard to case, and takes the last.
	"names in any case": func(body []byte) ([]byte, bool) {
		var m struct {
			JSONRPC string          `json:"jsonrpc"`
			ID      json.RawMessage `json:"id,omitempty"`
			Method  string          `json:"method,omitempty"`
			Params  *struct {
				Name      string                     `json:"name,omitempty"`
				URI       string                     `json:"uri,omitempty"`
				TaskID    string                     `json:"taskId,omitempty"`
				Arguments map[string]json.RawMessage `json:"arguments,omitempty"`
				Meta      map[string]json.RawMessage `json:"_meta,omitempty"`
			} `json:"params,omitempty"`
		}
		err := json.Unmarshal(body, &m)
		out, err2 := json.Marshal(m)
		return out, err == nil && err2 == nil
	},
	"the first of many values": func(body []byte) ([]byte, bool) {
		var first json.RawMessage
		err := json.NewDecoder(bytes.NewReader(body)).Decode(&first)
		return first, err == nil
	},
	"what is not UTF-8 replaced": func(body []byte) ([]byte, bool) { return bytes.ToValidUTF8(body, []byte("\ufffd")), true },
	"a byte order mark skipped":  func(body []byte) ([]byte, bool) { return bytes.CutPrefix(body, []byte("\ufeff")) },
}

// compare makes cases, and has every reader read those that read accepts. A
// reading without a whole is compared by what is picked alone.
func compare(t *testing.T, seed uint64, cases int, read func(HTTPRequest) (reading, bool),
	readers map[string]func(*testing.T, [][]byte) []reading, differs func(in HTTPRequest, reader string, ours, theirs reading)) (accepted int) {
	t.Helper()
	const batch = 20_000
	for from := 0; from < cases && !t.Failed(); from += batch {
		var (
			ins    []HTTPRequest
			bodies [][]byte
			want   []reading
		)
		for i := from; i < min(from+batch, cases); i++ {
			in := mutator{rand.New(rand.NewPCG(seed, uint64(i)))}.request()
			if r, ok := read(in); ok {
				ins, bodies, want = append(ins, in), append(bodies, in.Body), append(want, r)
			}
		}
		accepted += len(ins)
		for name, reader := range readers {
			theirs := reader(t, bodies)
			for i := range theirs {
				if theirs[i].picked != want[i].picked || want[i].whole != "" && theirs[i].whole != want[i].whole {
					differs(ins[i], name, want[i], theirs[i])
				}
			}
		}
	}
	return accepted
}

// ours is the reading of a message that was accepted, from what the decision
// sees of it.
func ours(t *testing.T, m *Message, body []byte) reading {
	v, err := strictjson.Parse(body, strictjson.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	arguments := map[string]any{}
	picked := []any{m.Method.Name, m.Input["name"], m.Input["uri"], m.Input["task"], arguments, m.ID}
	if list, ok := m.Input["arguments"].([]any); ok && m.Method.Name == "prompts/get" {
		for _, pair := range list {
			arguments[pair.(map[string]any)["name"].(string)] = pair.(map[string]any)["value"]
		}
	}
	if len(m.Calls) > 0 {
		picked[1], picked[4] = m.Calls[0].Name, m.Calls[0].Arguments
	}
	if m.ID == nil {
		picked[5] = v.(map[string]any)["id"] // of an answer
	}
	if m.Method.Kind == Response {
		picked[0] = nil
	}
	return reading{canonical(t, picked), canonical(t, v)}
}

// canonical gives the RFC 8785 text of what doubles make of a value.
func canonical(t testing.TB, v any) string {
	text, err := jsonexp.Marshal(v)
	if err == nil {
		err = (*jsontext.Value)(&text).Canonicalize()
	}
	if err != nil {
		t.Fatalf("%v: %v", v, err)
	}
	return string(text)
}

func readAll(bodies [][]byte, read func([]byte) (reading, error)) []reading {
	out := make([]reading, len(bodies))
	for i, body := range bodies {
		r, err := read(body)
		if err != nil {
			r = reading{picked: "error"}
		}
		out[i] = r
	}
	return out
}

// sdkDecode reads as the SDK's internal/json does.
func sdkDecode(data []byte, into any) error {
	d := segmentio.NewDecoder(bytes.NewReader(data))
	d.DontMatchCaseInsensitiveStructFields()
	return d.Decode(into)
}

// sdkReads is how a server of the Go SDK reads a message.
func sdkReads(body []byte) (reading, error) {
	msg, err := jsonrpc.DecodeMessage(body)
	if err != nil {
		return reading{}, err
	}
	var whole any
	if err := sdkDecode(body, &whole); err != nil {
		return reading{}, err
	}
	picked := []any{nil, nil, nil, nil, map[string]any{}, nil}
	switch msg := msg.(type) {
	case *jsonrpc.Response:
		picked[5] = msg.ID.Raw()
	case *jsonrpc.Request:
		picked[0], picked[5] = msg.Method, msg.ID.Raw()
		if err := sdkParams(msg, picked); err != nil {
			return reading{}, err
		}
	}
	first, err1 := jsonexp.Marshal(picked)
	second, err2 := jsonexp.Marshal(whole)
	err3, err4 := (*jsontext.Value)(&first).Canonicalize(), (*jsontext.Value)(&second).Canonicalize()
	return reading{string(first), string(second)}, errors.Join(err1, err2, err3, err4)
}

func sdkParams(msg *jsonrpc.Request, picked []any) error {
	switch msg.Method {
	case "tools/call":
		var p sdk.CallToolParamsRaw
		if err := sdkDecode(msg.Params, &p); err != nil {
			return err
		}
		picked[1] = p.Name
		if p.Arguments != nil {
			return sdkDecode(p.Arguments, &picked[4])
		}
	case "prompts/get":
		var p sdk.GetPromptParams
		if err := sdkDecode(msg.Params, &p); err != nil {
			return err
		}
		picked[1] = p.Name
		if p.Arguments != nil {
			picked[4] = p.Arguments
		}
	case "resources/read":
		var p sdk.ReadResourceParams
		err := sdkDecode(msg.Params, &p)
		picked[2] = p.URI
		return err
	case "completion/complete":
		return sdkDecode(msg.Params, new(sdk.CompleteParams))
	case "tasks/get": // which the SDK does not have
		var p struct {
			TaskID string `json:"taskId"`
		}
		err := sdkDecode(msg.Params, &p)
		picked[3] = p.TaskID
		return err
	}
	return nil
}

// peer finds a program: in TOOLGRANT_MCP_PEERS/bin, else on the path.
func peer(t *testing.T, name string) string {
	t.Helper()
	path := name
	if dir := os.Getenv("TOOLGRANT_MCP_PEERS"); dir != "" {
		path = filepath.Join(dir, "bin", name)
	}
	path, err := exec.LookPath(path)
	switch {
	case err != nil && testing.Short():
		t.Skipf("no %s", name)
	case err != nil:
		t.Fatalf("%v: run `make mcp`, and set TOOLGRANT_MCP_PEERS to the folder that it prints; or test with -short", err)
	}
	return path
}

// run has a program of testdata read messages.
func run(t *testing.T, bodies [][]byte, program ...string) []reading {
	t.Helper()
	var list []reading
	for _, line := range feed(t, nil, bodies, program...) {
		picked, whole, _ := strings.Cut(line, "\t")
		list = append(list, reading{picked, whole})
	}
	return list
}

// feed gives what a program of testdata prints for each body. env is added to
// the test's own.
func feed(t *testing.T, env []string, bodies [][]byte, program ...string) []string {
	t.Helper()
	var in bytes.Buffer
	for _, body := range bodies {
		in.Write(binary.BigEndian.AppendUint32(nil, uint32(len(body))))
		in.Write(body)
	}
	cmd := exec.CommandContext(t.Context(), program[0], program[1:]...)
	var fault strings.Builder
	cmd.Stdin, cmd.Stderr, cmd.Env = &in, &fault, append(os.Environ(), env...)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v: %s", program, err, fault.String())
	}
	list := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if len(list) != len(bodies) {
		t.Fatalf("%v read %d of %d", program, len(list), len(bodies))
	}
	return list
}
