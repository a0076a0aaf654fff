// Package cedar decides by Cedar policies (https://docs.cedarpolicy.com). Load
// reads a directory into a Set, and a Live follows a directory that changes;
// both are grants.Deciders. Grant manifests are loaded with the policies, and
// come into force with them: the manifest of a task's kind is a ceiling that is
// looked at before any policy. SchemaText, Set.Warnings, Set.Baseline,
// Set.ExampleInput and Set.DecideExample are for people who write policies. No
// Cedar type leaves this package.
//
// Invariants:
//   - A Set never changes: a reload makes another one, and a batch is decided
//     by one Set alone.
//   - What does not load changes nothing: the last good Set stays in force.
//   - A Set that was loaded has been validated against the schema that the
//     catalogue gives (SchemaText), and every tool, server, set, action, group,
//     kind, issuer, type and member that it names exists (members says where
//     that cannot be known).
//   - Cedar skips a policy that errs, so an erring forbid would vanish: any
//     evaluation error denies.
//   - Policy sees all of the input of a call, or of what an MCP server is asked,
//     exactly, but for what the catalogue calls opaque, and all of a task's
//     parameters; what has no exact Cedar value denies (Unrepresentable).
//   - No policy permits the start of a task, or a grant, that the manifest of the
//     task's kind does not cover (Manifest), and no manifest permits anything.
//   - The order of policies, files and maps decides nothing.
package cedar

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	cedargo "github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"

	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/manifest"
)

// Config says what a Set is loaded from.
type Config struct {
	Dir     string           // holds *.cedar and, if there is one, entities.json
	Catalog *catalog.Catalog // required
	Groups  []string         // groups that identities are mapped to; policy may name them beside those of entities.json
	Aliases []string         // of all who vouch for agents, issuers and certificates: an agent's id is ALIAS/SUBJECT; empty: any

	Manifests string // folder of grant manifests (package manifest), *.yaml; empty: none
}

// Set is one validated set of policies with its entities. It is safe for
// concurrent use.
type Set struct {
	*world   // what no request changes
	revision grants.Digest
	findings []Finding
	ids      []string           // sorted
	advices  map[string]string  // id of a policy -> its @advice, if it has one
	tools    map[string]*tool   // SERVER/TOOL -> its routes and input
	servers  map[string]*server // id of an MCP server -> its routes
	kinds    map[string]kind    // task kind that a policy's scope names -> its routes
	anyKind  kind               // for any other kind
}

// tool is what deciding about one tool needs.
type tool struct {
	uid, action                 cedargo.EntityUID // the tool and its call action
	input                       *shape
	mcp                         bool // of an MCP server
	call, grant, askFor, revoke route
}

// kind is the routes of the task actions for one task kind.
type kind struct{ start, end route }

// Load reads, checks and validates the policies of a directory and the manifests
// beside them. It is all or nothing: the error joins every fault that was found
// (up to 50 in policies), each with file and line. Nothing of a directory that
// fails is ever used.
func Load(cfg Config) (*Set, error) {
	s, _, err := read(cfg)
	return s, err
}

// read loads the directory, and says what it read.
func read(cfg Config) (*Set, fingerprint, error) {
	if cfg.Catalog == nil {
		return nil, fingerprint{}, errors.New("loading policies: no catalogue")
	}
	src, err := readSource(cfg)
	seen := cfg.fingerprint(src, err)
	if err != nil {
		return nil, seen, fmt.Errorf("loading policies: %w", err)
	}
	if err := src.addManifests(cfg); err != nil {
		return nil, seen, err
	}
	s, err := load(src, cfg)
	if err != nil {
		return nil, seen, fmt.Errorf("loading policies from %s: %w", cfg.Dir, err)
	}
	return s, seen, nil
}

func load(src source, cfg Config) (*Set, error) {
	w, err := newWorld(cfg, src.manifests)
	if err != nil {
		return nil, err
	}
	if err := w.addEntities(src.entities, cfg.Groups); err != nil {
		return nil, err
	}
	policies, err := parsePolicies(src.policies)
	if err != nil {
		return nil, err
	}
	if err := checkPolicies(policies, w); err != nil {
		return nil, err
	}
	s := newSet(policies, w)
	s.revision = src.digest(cfg)
	s.findings = s.find(policies, cfg)
	return s, nil
}

// world is what policies may name: all that the catalogue and the manifests
// declare and, in base, what addEntities adds to it.
type world struct {
	catalog   *catalog.Catalog
	manifests *manifest.Set
	aliases   []string           // of all who vouch for agents; empty: not known, and not checked
	inputs    map[string]*shape  // SERVER/TOOL -> its input
	params    *shape             // of tasks of all kinds; without attributes: no kind has any
	methods   map[string]*method // action -> what can be asked of an MCP server; empty: there is none
	schema    *resolved.Schema
	base      cedargo.EntityMap
	declared  []declaration // by entities.json, in its order
}

func newWorld(cfg Config, m *manifest.Set) (*world, error) {
	c := cfg.Catalog
	inputs, err := shapes(c)
	if err != nil {
		return nil, err
	}
	params, err := paramsShape(m)
	if err != nil {
		return nil, err
	}
	all, err := methods(c)
	if err != nil {
		return nil, err
	}
	schema, err := newSchema(c, inputs, params, all).Resolve()
	if err != nil {
		return nil, fmt.Errorf("schema of the catalogue: %w", err)
	}
	return &world{
		catalog: c, manifests: m, aliases: cfg.Aliases, inputs: inputs, params: params, methods: all,
		schema: schema, base: catalogEntities(c, schema),
	}, nil
}

func newSet(policies []*parsed, w *world) *Set {
	s := &Set{world: w, advices: map[string]string{}, tools: map[string]*tool{}, servers: map[string]*server{}, kinds: map[string]kind{}}
	ix := index{}
	for _, p := range policies {
		s.ids = append(s.ids, p.id)
		if p.advice != "" {
			s.advices[p.id] = p.advice
		}
		ix.add(entry{cedargo.PolicyID(p.id), p.policy}, w.base)
	}
	slices.Sort(s.ids)
	s.makeRoutes(ix)
	return s
}

// Revision is a SHA-256 over all that decisions rest on: policy files, entities,
// the catalogue, the manifests, the groups, and how this package puts an input to
// Cedar. Two loads of the same have the same revision.
func (s *Set) Revision() grants.Digest { return s.revision }

// Manifests are the manifests that were loaded with the policies; nil or empty:
// there is none.
func (s *Set) Manifests() *manifest.Set { return s.manifests }

// Policies returns the ids of all policies, sorted.
func (s *Set) Policies() []string { return slices.Clone(s.ids) }

// mapping names how an Input becomes a Cedar request. It is raised with any
// change that could change a decision, so that grants are then decided anew.
const mapping = "toolgrant cedar mapping 4"

func (s source) digest(cfg Config) grants.Digest {
	h := sha256.New()
	write := func(part []byte) { // with its length: no two lists of parts run together
		_ = binary.Write(h, binary.BigEndian, uint64(len(part)))
		h.Write(part)
	}
	write([]byte(mapping))
	if d := s.manifests.Digest(); !d.IsZero() {
		write([]byte("manifests")) // shorter than the catalogue's digest, which stands here otherwise
		write(d[:])
	}
	write(cfg.Catalog.Digest[:])
	write(s.entities)
	for _, f := range s.policies { // sorted by name
		write([]byte(f.name))
		write(f.text)
	}
	write(nil) // no file has the empty name
	for _, g := range slices.Compact(slices.Sorted(slices.Values(cfg.Groups))) {
		write([]byte(g))
	}
	return grants.Digest(h.Sum(nil))
}
