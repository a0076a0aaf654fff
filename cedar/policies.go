package cedar

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"

	cedargo "github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
	"github.com/cedar-policy/cedar-go/x/exp/schema/validate"
)

const (
	maxID     = 128 // bytes of a policy id
	maxFaults = 50  // told at once
)

// parsed is one policy and where it stands.
type parsed struct {
	id     string
	policy *cedargo.Policy
	file   file
	from   int // its text is file.text[from:to]
	to     int
}

func (p *parsed) at(offset int) string {
	return fmt.Sprintf("%s:%d", p.file.name, lineAt(p.file.text, offset))
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
		// The parser knows the position, and calls the file "<input>".
		return nil, fmt.Errorf("%s: %s", f.name, strings.Replace(err.Error(), "<input>:", f.name+":", 1))
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
		p.id = string(policy.Annotations()["id"])
		out[i] = p
	}
	return out, nil
}

func checkID(p *parsed) error {
	switch {
	case p.id == "":
		return errors.New(`a policy without an @id("…"): decisions could not name it`)
	case len(p.id) > maxID:
		return fmt.Errorf("an @id of more than %d bytes", maxID)
	case strings.ContainsFunc(p.id, func(r rune) bool { return !unicode.IsPrint(r) }):
		return fmt.Errorf("@id(%q) has characters that do not print", p.id)
	}
	return nil
}

// checkPolicies validates the policies against the schema and looks for every
// entity that they name in base. The validator does not do the latter: to it,
// a misspelt tool is a tool.
func checkPolicies(policies []*parsed, schema *resolved.Schema, base cedargo.EntityMap) error {
	var faults faults
	v := validate.New(schema)
	for _, p := range policies {
		named := len(faults.errs)
		for _, c := range p.ast().Conditions {
			kinds, err := kindsCompared(c.Body)
			if err != nil {
				faults.add("%s: policy %q: %w", p.at(p.from), p.id, err)
			}
			for _, uid := range kinds {
				if err := checkMention(base, uid); err != nil {
					faults.add("%s: policy %q: %w", p.at(p.find(uid)), p.id, err)
				}
			}
		}
		for _, uid := range mentions(p.ast()) {
			if err := checkMention(base, uid); err != nil {
				faults.add("%s: policy %q: %w", p.at(p.find(uid)), p.id, err)
			}
		}
		if len(faults.errs) > named {
			continue // the validator would say the same in other words
		}
		if err := v.Policy("", p.ast()); err != nil {
			for _, text := range leaves(err) {
				faults.add("%s: policy %q: %s", p.at(p.from), p.id, text)
			}
		}
		if faults.full() {
			break
		}
	}
	return faults.join()
}

// find returns the offset at which the policy mentions the entity. Cedar's
// syntax tree has no positions, so it is looked for in the text.
func (p *parsed) find(uid cedargo.EntityUID) int {
	if i := bytes.Index(p.file.text[p.from:p.to], []byte(strconv.Quote(string(uid.ID)))); i >= 0 {
		return p.from + i
	}
	return p.from
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

func checkMention(base cedargo.EntityMap, uid cedargo.EntityUID) error {
	if uid.Type == agentType { // agents come with their identities
		if _, ok := agentOf(string(uid.ID)); !ok {
			return fmt.Errorf("%s: an agent's id is ISSUER/SUBJECT", uid)
		}
		return nil
	}
	if _, known := base[uid]; known {
		return nil
	}
	return unknown(base, uid)
}

// unknown is the error about an entity that nothing declares.
func unknown(base cedargo.EntityMap, uid cedargo.EntityUID) error {
	from, ok := map[cedargo.EntityType]string{
		toolType: "the catalogue", serverType: "the catalogue", setType: "the catalogue", actionType: "the schema",
		groupType: entitiesFile + " or among the groups of identities", kindType: entitiesFile,
	}[uid.Type]
	if !ok {
		return fmt.Errorf("%s: there is no entity type %s; all are in the namespace %s", uid, uid.Type, namespace)
	}
	best, bestDistance := "", 3 // further is no misspelling
	for known := range base {
		if known.Type != uid.Type {
			continue
		}
		id := string(known.ID)
		if d := distance(string(uid.ID), id); d < bestDistance || d == bestDistance && id < best {
			best, bestDistance = id, d
		}
	}
	if best == "" {
		return fmt.Errorf("%s is not in %s", uid, from)
	}
	return fmt.Errorf("%s is not in %s; did you mean %q?", uid, from, best)
}

// distance is the number of bytes to insert, delete or replace to make b of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}

// faults collects what is wrong with a set, so that one reload shows it all.
type faults struct{ errs []error }

func (f *faults) full() bool { return len(f.errs) >= maxFaults }

func (f *faults) add(format string, args ...any) {
	if !f.full() {
		f.errs = append(f.errs, fmt.Errorf(format, args...))
	}
}

// join gives one error, nil for no fault. Its lines are sorted, so that the
// order of maps does not show.
func (f *faults) join() error {
	slices.SortStableFunc(f.errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(f.errs...)
}
