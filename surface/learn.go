package surface

import (
	"fmt"
	"mime"
	"net/http"

	"go.uber.org/zap"

	"github.com/toolgrant/toolgrant/authz/mcp"
	"github.com/toolgrant/toolgrant/strictjson"
)

// maxID is the longest id of a session or task, in bytes.
const maxID = 256

const (
	initialize    = "initialize"
	sessionHeader = "Mcp-Session-Id"
)

// watched reports whether the answers to a method are seen here.
func watched(method string) bool { return method == initialize || method == mcp.ToolsCall }

// learnSession binds the session that an initialize opened to its agent (MCP
// 2025-11-25, Transports, "Session Management"). A server without sessions names
// none.
func (s *Surface) learnSession(pass mcp.Pass, res *http.Response) error {
	ids := res.Header.Values(sessionHeader)
	if pass.Method != initialize || !success(res) || len(ids) == 0 {
		return nil
	}
	if len(ids) > 1 || !visible(ids[0]) {
		return fmt.Errorf("%w: its session id is none: more than one, not visible ASCII, or over %d bytes", errRefused, maxID)
	}
	if !s.sessions.put(s.cfg.Now(), key{pass.Server, ids[0]}, pass.Agent, false) {
		return fmt.Errorf("%w: it gives a session id that another agent has", errRefused)
	}
	return nil
}

// visible reports whether an id has a session id's form: visible ASCII.
func visible(id string) bool {
	if id == "" || len(id) > maxID {
		return false
	}
	for i := range len(id) {
		if id[i] <= 0x20 || id[i] >= 0x7f {
			return false
		}
	}
	return true
}

// success reports whether an answer is one to learn from.
func success(res *http.Response) bool { return res.StatusCode/100 == 2 }

// watcher sees the body of an answer before the client does. feed and end return
// the bytes that may go on, good until the next call; with an error, it is those
// before what the client must not get.
type watcher interface {
	feed(chunk []byte) (ready []byte, err error)
	end() (ready []byte, err error)
	whole() bool // nothing, the head included, goes on before the body is read
}

// watch chooses what sees the body of an answer.
func (s *Surface) watch(a *answer, res *http.Response) watcher {
	pass := a.pass
	if pass.Method != mcp.ToolsCall || !success(res) || pass.Revision < mcp.Rev20251125 {
		return unseen{} // revisions before know no tasks
	}
	kind, ok := mediaType(res.Header)
	if !ok {
		s.unread(a, "it has no content type or one of several readings, or a coding")
		return unseen{}
	}
	learn := func(text []byte) error { return s.learnTask(a, text) }
	tooLarge := func() { s.unread(a, "it is too large") }
	switch kind {
	case "application/json":
		return &document{max: s.maxAnswer, learn: learn, tooLarge: tooLarge}
	case "text/event-stream":
		return &events{max: s.maxEvent, learn: learn, tooLarge: tooLarge}
	}
	return unseen{} // neither is an answer of MCP's
}

// mediaType reads the content type of a body that is not coded. ok is false where
// clients could read it differently.
func mediaType(h http.Header) (kind string, ok bool) {
	types := h.Values("Content-Type")
	if len(types) != 1 || len(h.Values("Content-Encoding")) > 0 {
		return "", false
	}
	kind, _, err := mime.ParseMediaType(types[0])
	return kind, err == nil
}

// learnTask binds the task that a call became to what it was called under. A
// server may tell of one task again (it de-duplicates); the first binding stays,
// so that an agent cannot move what it started to another grant.
func (s *Surface) learnTask(a *answer, text []byte) error {
	pass := a.pass
	id, unread := taskOf(pass.Revision, text, s.maxAnswer)
	if unread != "" {
		s.unread(a, unread)
	}
	if id == "" {
		return nil
	}
	if !s.tasks.put(s.cfg.Now(), key{pass.Server, id}, pass.Agent, pass.Grants) {
		return fmt.Errorf("%w: it gives a task id that another agent has", errRefused)
	}
	return nil
}

// unread tells, once for an answer, that something of it passed unlearnt.
func (s *Surface) unread(a *answer, why string) {
	if a.told {
		return
	}
	a.told = true
	s.cfg.Logger.Warn("an answer is not read; if it made a task, that is nobody's",
		zap.String("decision", a.pass.Decision), zap.String("server", a.pass.Server), zap.String("why", why))
}

// taskOf finds the id of the task that a message says its request became; "" for
// none. unread says why a message could not be read.
//
//	2025-11-25  result.task.taskId                        (Tasks, "Creating Tasks")
//	2026-07-28  result.resultType "task", result.taskId   (extension io.modelcontextprotocol/tasks, "Polymorphic Results")
func taskOf(revision string, text []byte, limit int) (id, unread string) {
	v, err := strictjson.Parse(text, strictjson.Limits{Bytes: limit})
	if err != nil {
		return "", err.Error()
	}
	message, _ := v.(map[string]any)
	if _, request := message["method"]; request {
		return "", ""
	}
	task, _ := message["result"].(map[string]any)
	if revision < mcp.Rev20260728 {
		task, _ = task["task"].(map[string]any)
	} else if task["resultType"] != "task" {
		return "", ""
	}
	id, _ = task["taskId"].(string)
	if len(id) > maxID {
		return "", "its task id is too long"
	}
	return id, ""
}
