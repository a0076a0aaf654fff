package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/toolgrant/toolgrant/strictjson"
)

// Bounds on what a server may answer.
const (
	maxMCPAnswers = 16 << 20  // bytes, of all answers
	maxMCPValues  = 2_000_000 // JSON values of one answer
	maxMCPRefusal = 64 << 10  // bytes of the body of an HTTP error, which is cut there
)

// answers is between the SDK's client and the server. The SDK decodes answers
// into structs, which lose what a pin must cover (members that it does not know,
// explicit false, numbers as they were written), and it reads JSON leniently. So
// each answer is read here, whole, bounded and strictly, and kept; the SDK gets
// exactly what was read, and never sees a stream.
//
// It adds the headers that it was told to add, follows no redirect, and what
// went wrong first ends the conversation.
type answers struct {
	ctx     context.Context // of the conversation, which is as long as this lives
	through http.RoundTripper
	header  http.Header // of every request

	mu   sync.Mutex
	left int64          // of maxMCPAnswers
	page map[string]any // result of the last tools/list, until it is taken
	err  error          // what ended the conversation
}

// failed is what ended the conversation; nil while it goes on.
func (a *answers) failed() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.err
}

// take gives the result of the last tools/list; nil if there is none.
func (a *answers) take() map[string]any {
	a.mu.Lock()
	defer a.mu.Unlock()
	page := a.page
	a.page = nil
	return page
}

// RoundTrip implements http.RoundTripper.
func (a *answers) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := a.failed(); err != nil {
		return nil, err
	}
	resp, err := a.roundTrip(req)
	if err != nil && req.Method == http.MethodPost {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.err == nil {
			a.err = err
		}
	}
	return resp, err
}

func (a *answers) roundTrip(req *http.Request) (*http.Response, error) {
	call, err := readCall(req)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(req.Context())
	defer cancel() // the body has been read
	defer context.AfterFunc(a.ctx, cancel)()
	req = req.Clone(ctx)
	for name, values := range a.header {
		req.Header[name] = values
	}
	resp, err := a.through.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var body []byte
	switch {
	case resp.StatusCode == http.StatusUnauthorized, resp.StatusCode == http.StatusForbidden,
		resp.StatusCode >= 300 && resp.StatusCode < 400:
		return nil, refusedBy(resp, a.header)
	case resp.StatusCode > 299, call.id == nil:
		body, err = a.read(resp.Body, maxMCPRefusal)
	default:
		body, err = a.answer(resp, call)
		resp.Header.Set("Content-Type", "application/json")
	}
	if err != nil {
		return nil, err
	}
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	return resp, nil
}

// mcpCall is what was asked, by the SDK.
type mcpCall struct {
	method string
	id     any // nil: a notification
}

func readCall(req *http.Request) (mcpCall, error) {
	if req.GetBody == nil {
		return mcpCall{}, nil // DELETE
	}
	body, err := req.GetBody()
	if err != nil {
		return mcpCall{}, err
	}
	defer body.Close()
	text, err := io.ReadAll(body)
	if err != nil {
		return mcpCall{}, err
	}
	v, err := strictjson.Parse(text, strictjson.Limits{})
	message, ok := v.(map[string]any)
	if err != nil || !ok {
		return mcpCall{}, fmt.Errorf("what is asked is no message: %w", err)
	}
	method, _ := message["method"].(string)
	return mcpCall{method, message["id"]}, nil
}

func refusedBy(resp *http.Response, sent http.Header) error {
	said := resp.Status
	if resp.StatusCode < 400 {
		return fmt.Errorf("it answers %q and points to %q; if you trust that, give it as the URL", shown(said, 80), shown(resp.Header.Get("Location"), 200))
	}
	challenge := ""
	if c := resp.Header.Get("WWW-Authenticate"); c != "" {
		challenge = " (" + shown(c, 200) + ")"
	}
	if sent.Get("Authorization") == "" {
		return fmt.Errorf("it answers %q%s: give a token for it by --bearer-file FILE", shown(said, 80), challenge)
	}
	return fmt.Errorf("it answers %q%s to the credential that it was given", shown(said, 80), challenge)
}

// read reads r, at most so many bytes, on the account of all answers.
func (a *answers) read(r io.Reader, most int64) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, most))
	if err != nil {
		return nil, err
	}
	return text, a.charge(len(text))
}

func (a *answers) charge(n int) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.left -= int64(n); a.left < 0 {
		return fmt.Errorf("it answers more than %d bytes", maxMCPAnswers)
	}
	return nil
}

// answer reads the answer to the call out of the response: the text of one
// JSON-RPC response.
func (a *answers) answer(resp *http.Response, call mcpCall) ([]byte, error) {
	switch kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); kind {
	case "application/json":
		text, err := a.read(resp.Body, maxMCPAnswers+1)
		if err != nil {
			return nil, err
		}
		if mine, err := a.readMessage(text, call); err != nil || mine {
			return text, err
		}
		return nil, fmt.Errorf("it answers %s with another message", call.method)
	case "text/event-stream":
		return a.stream(resp.Body, call)
	default:
		return nil, fmt.Errorf("it answers %s with the content type %q, which is none of MCP's: is the path right?", call.method, shown(kind, 80))
	}
}

// readMessage reads one message strictly, and reports whether it is the answer.
// A result of tools/list is kept.
func (a *answers) readMessage(text []byte, call mcpCall) (mine bool, err error) {
	v, err := strictjson.Parse(text, strictjson.Limits{Bytes: maxMCPAnswers, Values: maxMCPValues})
	if err != nil {
		return false, unreadable(text, call, err)
	}
	message, ok := v.(map[string]any)
	if !ok {
		return false, fmt.Errorf("it answers %s with what is no JSON-RPC message", call.method)
	}
	// A request of the server's may have the same id.
	if _, asks := message["method"]; asks || message["id"] != call.id {
		return false, nil
	}
	if result, ok := message["result"].(map[string]any); ok && call.method == "tools/list" {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.page = result
	}
	return true, nil
}

// stream reads server-sent events up to the answer (WHATWG HTML, Section 9.2.6).
// What else the server has to say is passed over.
func (a *answers) stream(r io.Reader, call mcpCall) ([]byte, error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxMCPAnswers)
	lines.Split(scanEventLine)
	var event string
	var data []byte
	var some bool
	for lines.Scan() {
		if err := a.charge(len(lines.Bytes()) + 1); err != nil {
			return nil, err
		}
		name, value, _ := bytes.Cut(lines.Bytes(), []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch {
		case len(lines.Bytes()) == 0:
			// An event without data only gives the stream an id.
			if some && len(data) > 0 && (event == "" || event == "message") {
				if mine, err := a.readMessage(data, call); err != nil || mine {
					return data, err
				}
			}
			event, data, some = "", nil, false
		case string(name) == "event":
			event = string(value)
		case string(name) == "data":
			if some {
				data = append(data, '\n')
			}
			data, some = append(data, value...), true
		}
	}
	switch err := lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return nil, fmt.Errorf("it answers more than %d bytes", maxMCPAnswers)
	case err != nil:
		return nil, err
	}
	return nil, fmt.Errorf("it ends its answer to %s before it has given one", call.method)
}

// scanEventLine is a bufio.SplitFunc: lines end in LF, CR LF or CR. A last line
// without an end is part of no event.
func scanEventLine(data []byte, atEOF bool) (advance int, token []byte, err error) {
	i := bytes.IndexAny(data, "\r\n")
	switch {
	case i < 0 && atEOF:
		return len(data), nil, nil
	case i < 0, data[i] == '\r' && i+1 == len(data) && !atEOF:
		return 0, nil, nil
	case data[i] == '\r' && i+1 < len(data) && data[i+1] == '\n':
		return i + 2, data[:i], nil
	}
	return i + 1, data[:i], nil
}

// unreadable says of which tool the descriptor is that cannot be read strictly.
// The text is looked at leniently for that, and for nothing else.
func unreadable(text []byte, call mcpCall, why error) error {
	if call.method != "tools/list" {
		return fmt.Errorf("its answer to %s cannot be read strictly: %w", call.method, why)
	}
	lenient := []json.Options{jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)}
	var list struct {
		Result struct {
			Tools []jsontext.Value `json:"tools"`
		} `json:"result"`
	}
	_ = json.Unmarshal(text, &list, lenient...) // what was read of it
	for i, entry := range list.Result.Tools {
		if _, err := strictjson.Parse(entry, strictjson.Limits{Bytes: maxMCPAnswers, Values: maxMCPValues}); err != nil {
			var named struct {
				Name string `json:"name"`
			}
			_ = json.Unmarshal(entry, &named, lenient...)
			return fmt.Errorf("the tool %s describes itself in a way that cannot be read strictly: %w",
				strconv.QuoteToASCII(strings.ToValidUTF8(shown(named.Name, 128), "?"))+" (number "+strconv.Itoa(i+1)+" of its list)", err)
		}
	}
	return fmt.Errorf("its list of tools cannot be read strictly: %w", why)
}
