package cedar

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"

	cedargo "github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/schema/validate"
)

const (
	maxID      = 128 // bytes of a policy id
	maxPattern = 256 // bytes of a "like" pattern, as it is written
	maxFaults  = 50  // told at once
)

// parsed is one policy and where it stands.
type parsed struct {
	id     string
	advice string // its @advice; "": none
	policy *cedargo.Policy
	file   file
	from   int // its text is file.text[from:to]
	to     int
}

func (p *parsed) at(offset int) string {
	line, column := p.position(offset)
	return fmt.Sprintf("%s:%d:%d", p.file.name, line, column)
}

func (p *parsed) ast() *ast.Policy { return (*ast.Policy)(p.policy.AST()) }

// parsePolicies parses the files and names the policies by @id. Cedar would
// name them by position, and take two of one id.
func parsePolicies(files []file) ([]*parsed, error) {
	var all []*parsed
	var faults faults
	byID := map[string]*parsed{}
	for _, f := range files {
		policies, err := parseFile(f)
		if err != nil {
			faults.add("%w", err)
			continue
		}
		for _, p := range policies {
			if err := checkID(p); err != nil {
				faults.add("%s: %w", p.at(p.from), err)
			} else if err := checkAdvice(p); err != nil {
				faults.add("%s: policy %q: %w", p.at(p.from), p.id, err)
			} else if first, twice := byID[p.id]; twice {
				faults.add("%s: @id(%q) is also that of the policy at %s", p.at(p.from), p.id, first.at(first.from))
			} else {
				byID[p.id] = p
			}
		}
		all = append(all, policies...)
	}
	if len(all) > maxPolicies {
		faults.add("%d policies; at most %d are loaded", len(all), maxPolicies)
	}
	return all, faults.join()
}

func parseFile(f file) ([]*parsed, error) {
	if err := checkText(f); err != nil {
		return nil, err
	}
	list, err := cedargo.NewPolicyListFromBytes(f.name, f.text)
	if err != nil {
		return nil, syntaxError(f, err)
	}
	if len(list) == 0 { // emptied, most likely: its forbids must not vanish without a word
		return nil, fmt.Errorf("%s: no policy in it; write one, or take the file away", f.name)
	}
	out := make([]*parsed, len(list))
	for i, policy := range list {
		p := &parsed{policy: policy, file: f, from: policy.Position().Offset, to: len(f.text)}
		if i > 0 {
			out[i-1].to = p.from
		}
		p.id, p.advice = string(policy.Annotations()["id"]), string(policy.Annotations()["advice"])
		out[i] = p
	}
	return out, nil
}

var (
	parserAt  = regexp.MustCompile(`(?:<input>|` + regexp.QuoteMeta(policySuffix) + `):(\d+:\d+):? `)
	parserGot = regexp.MustCompile(`exact got (.*) want (.*)`)
)

// syntaxError puts the position first, which the parser hides in its text.
func syntaxError(f file, err error) error {
	at, text := "", err.Error()
	if m := parserAt.FindStringSubmatchIndex(text); m != nil {
		at, text = ":"+text[m[2]:m[3]], text[m[1]:]
	}
	if m := parserGot.FindStringSubmatch(text); m != nil {
		text = fmt.Sprintf("%q is not expected here, but %q", m[1], m[2])
		if m[1] == "" {
			text = fmt.Sprintf("it ends where %q is expected", m[2])
		}
	}
	return fmt.Errorf("%s%s: not a policy: %s", f.name, at, text)
}

func checkID(p *parsed) error {
	switch {
	case p.id == "":
		return errors.New(`a policy without an id, by which decisions name it; write @id("what-it-says") before it`)
	case len(p.id) > maxID:
		return fmt.Errorf("an @id of more than %d bytes; write a shorter one", maxID)
	case strings.ContainsFunc(p.id, func(r rune) bool { return !unicode.IsPrint(r) }):
		return fmt.Errorf("@id(%q) has characters that do not print", p.id)
	}
	return nil
}

// checkPolicies validates the policies against the schema and looks for every
// name in them. The validator does not do the latter: to it, a misspelt tool is
// a tool.
func checkPolicies(policies []*parsed, w *world) error {
	var faults faults
	v := validate.New(w.schema)
	for _, p := range policies {
		if faults.full() {
			break
		}
		named := len(faults.errs)
		checkNames(p, w, &faults)
		checkMembers(p, w, &faults)
		if len(faults.errs) > named {
			continue // the validator would say the same in other words
		}
		err := v.Policy("", p.ast())
		if err == nil && !w.matchable(p.ast()) {
			faults.add("%s: policy %q: its scope matches nothing: the action is not about that resource (a tool's call is about the tool, what is asked by MCP about an MCP server)", p.at(p.from), p.id)
		}
		if err != nil {
			for _, text := range innermost(leaves(err)) {
				line, text := p.explain(text)
				faults.add("%s: policy %q: %s", line, p.id, text)
			}
		}
	}
	return faults.join()
}

// checkNames looks for the entities and kinds that a policy names, and at the
// length of its patterns.
func checkNames(p *parsed, w *world, faults *faults) {
	mention := func(uid cedargo.EntityUID) {
		if err := w.checkMention(uid); err != nil {
			faults.add("%s: policy %q: %w", p.at(p.findText(string(uid.ID))), p.id, err)
		}
	}
	for _, uid := range mentions(p.ast()) {
		mention(uid)
	}
	for _, c := range p.ast().Conditions {
		kinds, err := kindsCompared(c.Body)
		if err != nil {
			faults.add("%s: policy %q: %w", p.at(p.from), p.id, err)
		}
		for _, name := range kinds {
			mention(cedargo.NewEntityUID(kindType, cedargo.String(name)))
		}
		if err := checkSumsForm(c.Body); err != nil {
			faults.add("%s: policy %q: %w", p.at(p.from), p.id, err)
		}
		ast.Inspect(ast.NewNode(c.Body), func(n ast.IsNode) bool {
			if like, ok := n.(ast.NodeTypeLike); ok && len(like.Value.MarshalCedar()) > maxPattern {
				faults.add("%s: policy %q: a pattern of more than %d bytes: what is matched with it costs the product of both lengths", p.at(p.findLike()), p.id, maxPattern)
			}
			return true
		})
	}
}

// explain says where and how to mend what the validator found. Its syntax tree
// has no positions either.
func (p *parsed) explain(text string) (at, explained string) {
	at = p.at(p.from)
	if _, rest, ok := strings.Cut(text, "attribute `"); ok {
		path, _, _ := strings.Cut(rest, "`")
		at = p.at(p.findMember(path[strings.LastIndexByte(path, '.')+1:]))
	}
	path, _ := unguarded(text)
	switch {
	case path != "":
		text += "; ask for it first: " + p.guard(path) + " && …"
	case strings.Contains(text, "optional attribute"):
		text += `; ask for it first: "… has NAME && …"`
	case strings.Contains(text, "applicable action"):
		text += `; start_task and end_task are about a TaskKind, mcp: actions about a ToolServer, every other action about a Tool; "call" is only a parent, and so are "mcp" and "mcp:notifications": write action in Toolgrant::Action::"call"`
	case strings.Contains(text, "not found"):
		text += "; name the actions or tools that have it in the policy's scope"
	case strings.Contains(text, "as a decimal value"):
		text += `; a decimal has one to four digits behind its point: decimal("1.0")`
	}
	return at, text
}

// leaves gives the texts of a tree of joined errors, sorted, each once: the
// validator repeats itself for every action, in random order.
func leaves(err error) []string {
	if tree, ok := err.(interface{ Unwrap() []error }); ok {
		var all []string
		for _, e := range tree.Unwrap() {
			all = append(all, leaves(e)...)
		}
		slices.Sort(all)
		return slices.Compact(all)
	}
	return []string{err.Error()}
}

// mentions lists the entities that a policy names, in its scope and in its
// conditions, in order.
func mentions(p *ast.Policy) []cedargo.EntityUID {
	var uids []cedargo.EntityUID
	for _, scope := range []ast.IsScopeNode{p.Principal, p.Action, p.Resource} {
		switch s := scope.(type) {
		case ast.ScopeTypeEq:
			uids = append(uids, s.Entity)
		case ast.ScopeTypeIn:
			uids = append(uids, s.Entity)
		case ast.ScopeTypeInSet:
			uids = append(uids, s.Entities...)
		case ast.ScopeTypeIsIn:
			uids = append(uids, s.Entity)
		}
	}
	for _, c := range p.Conditions {
		ast.Inspect(ast.NewNode(c.Body), func(n ast.IsNode) bool {
			if v, ok := n.(ast.NodeValue); ok {
				if uid, ok := v.Value.(cedargo.EntityUID); ok {
					uids = append(uids, uid)
				}
			}
			return true
		})
	}
	return uids
}

func (w *world) checkMention(uid cedargo.EntityUID) error {
	if uid.Type == agentType { // agents come with their identities
		_, err := w.agent(uid)
		return err
	}
	if _, known := w.base[uid]; known {
		return nil
	}
	if uid.Type == actionType {
		if hint := w.actionHint(string(uid.ID)); hint != "" {
			return fmt.Errorf("%s is not in the schema%s", uid, hint)
		}
	}
	return unknown(w.base, uid)
}

// unknown is the error about an entity that nothing declares.
func unknown(base cedargo.EntityMap, uid cedargo.EntityUID) error {
	from, ok := map[cedargo.EntityType]string{
		toolType: "the catalogue", serverType: "the catalogue", setType: "the catalogue", actionType: "the schema",
		groupType: entitiesFile + " or among the groups of identities", kindType: entitiesFile + ", and has no manifest",
	}[uid.Type]
	if !ok {
		types := func(yield func(string) bool) {
			for _, t := range []cedargo.EntityType{agentType, groupType, toolType, serverType, setType, kindType, actionType} {
				if !yield(string(t)) {
					return
				}
			}
		}
		return fmt.Errorf("%s: there is no entity type %s; all are in the namespace %s%s", uid, uid.Type, namespace, suggest(string(uid.Type), types))
	}
	known := func(yield func(string) bool) {
		for k := range base {
			if k.Type == uid.Type && !yield(string(k.ID)) {
				return
			}
		}
	}
	hint := suggest(string(uid.ID), known)
	if uid.Type == kindType && !strings.Contains(hint, "did you mean") {
		hint += fmt.Sprintf(`; declare it in `+entitiesFile+`: {"uid": {"type": %q, "id": %q}}`, uid.Type, uid.ID)
	}
	return fmt.Errorf("%s is not in %s%s", uid, from, hint)
}

// faults collects what is wrong with a set, so that one reload shows it all.
type faults struct{ errs []error }

func (f *faults) full() bool { return len(f.errs) >= maxFaults }

func (f *faults) add(format string, args ...any) {
	err := fmt.Errorf(format, args...)
	same := func(e error) bool { return e.Error() == err.Error() }
	if !f.full() && !slices.ContainsFunc(f.errs, same) {
		f.errs = append(f.errs, err)
	}
}

// join gives one error, nil for no fault. Its lines are sorted, so that the
// order of maps does not show.
func (f *faults) join() error {
	slices.SortStableFunc(f.errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(f.errs...)
}
