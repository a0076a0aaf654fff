package cedar

import (
	"bytes"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/toolgrant/toolgrant/confdir"
	"github.com/toolgrant/toolgrant/manifest"
)

// Bounds of what is read. All are far above what people write and far below
// what hurts.
const (
	maxFile     = 256 << 10 // bytes of one policy file
	maxTotal    = 1 << 20   // bytes of all policy files
	maxEntities = 1 << 20   // bytes of entities.json
	maxPolicies = 10_000
	maxNesting  = 64      // brackets within brackets
	maxTokens   = 1 << 14 // of one policy
	maxLinks    = 64      // names joined by dots
)

const (
	entitiesFile = "entities.json"
	policySuffix = ".cedar"
)

// source is the text of a policy directory, and the manifests beside it.
type source struct {
	policies  []file // sorted by name
	entities  []byte // nil: there is no entities.json
	tree      fingerprint
	manifests *manifest.Set // of tree; nil: none, or not loaded yet
}

type file struct {
	name string
	text []byte
}

func readSource(cfg Config) (source, error) {
	return readTwice(func() (source, error) { return readOnce(cfg) })
}

func readOnce(cfg Config) (source, error) {
	src, err := readDir(cfg.Dir)
	src.tree = treeOf(cfg.Manifests)
	return src, err
}

var errChanged = errors.New("the directory, or that of the manifests, changed while it was being read")

// addManifests loads the manifests that the source is of, and no others.
func (s *source) addManifests(cfg Config) error {
	if cfg.Manifests == "" {
		return nil
	}
	m, err := manifest.Load(cfg.Manifests, cfg.Catalog)
	if err == nil && treeOf(cfg.Manifests) != s.tree {
		err = errChanged
	}
	if err != nil {
		return fmt.Errorf("loading manifests from %s: %w", cfg.Manifests, err)
	}
	s.manifests = m
	return nil
}

// readTwice wants the same twice in a row, of policies and manifests together.
func readTwice(read func() (source, error)) (source, error) {
	return confdir.Twice(read, source.equal, errChanged)
}

func (s source) equal(o source) bool {
	if len(s.policies) != len(o.policies) || !bytes.Equal(s.entities, o.entities) || s.tree != o.tree {
		return false
	}
	for i, f := range s.policies {
		if f.name != o.policies[i].name || !bytes.Equal(f.text, o.policies[i].text) {
			return false
		}
	}
	return true
}

// readDir reads a policy directory once: a forbid must not vanish without a word.
func readDir(dir string) (source, error) {
	all, err := confdir.Rules{
		Suffix:   policySuffix,
		Others:   []confdir.Other{{Name: entitiesFile, Max: maxEntities}},
		MaxFile:  maxFile,
		MaxTotal: maxTotal,
		Words: confdir.Words{
			Files:      "policy files",
			Content:    "policies",
			Folder:     "policy directory",
			SubFolder:  "sub-directory",
			SubFolders: "sub-directories",
			Advice:     "; few policies about sets and groups say more than many about each tool",
		},
	}.Read(dir)
	if err != nil {
		return source{}, err
	}
	if len(all.Files) == 0 {
		return source{}, fmt.Errorf("%s holds no *.cedar file: with no policy nothing could ever be permitted", dir)
	}
	src := source{entities: all.Others[entitiesFile]}
	for _, f := range all.Files {
		src.policies = append(src.policies, file{f.Name, f.Text})
	}
	return src, nil
}

// checkText bounds a policy file before cedar-go parses it. Its parser,
// compiler, validator and evaluator recurse by nesting and by the length of a
// chain (!!!…, a && b && …, if … else if …) without a limit, and a Go stack
// overflow cannot be recovered. "has a.b.c…" costs the validator the cube of its
// length (1,600 names: a second). Tokens are counted as its scanner cuts them or
// finer. What it reads otherwise than Cedar's grammar does, and so hides
// policies from one of the two, is refused: block comments and bare carriage
// returns.
func checkText(f file) error {
	if !utf8.Valid(f.text) {
		return fmt.Errorf("%s: not UTF-8", f.name)
	}
	var nesting, tokens, links int
	var last byte // first byte of the token before
	for i := 0; i < len(f.text); {
		start := i
		refuse := func(format string, args ...any) error {
			return fmt.Errorf("%s:%d: %w", f.name, lineAt(f.text, start), fmt.Errorf(format, args...))
		}
		switch c := f.text[i]; {
		case c == 0:
			return refuse("NUL byte")
		case c == '\r' && !bytes.HasPrefix(f.text[i:], []byte("\r\n")):
			return refuse("carriage return without a line feed")
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			i++
			continue
		case bytes.HasPrefix(f.text[i:], []byte("/*")):
			return refuse("block comment: Cedar has // comments only")
		case bytes.HasPrefix(f.text[i:], []byte("//")):
			for i < len(f.text) && f.text[i] != '\n' {
				if f.text[i] == '\r' && !bytes.HasPrefix(f.text[i:], []byte("\r\n")) {
					return refuse("carriage return without a line feed")
				}
				i++
			}
			continue
		case c == '"':
			var err error
			if i, err = skipString(f.text, i); err != nil {
				return refuse("%w", err)
			}
		case isWord(c):
			for i < len(f.text) && isWord(f.text[i]) {
				i++
			}
		default:
			i++
			switch c {
			case '(', '[', '{':
				nesting++
			case ')', ']', '}':
				nesting--
			}
		}
		if tokens++; f.text[start] == ';' {
			tokens = 0
		}
		if f.text[start] == '.' {
			links++
		} else if last != '.' {
			links = 0
		}
		last = f.text[start]
		if links > maxLinks {
			return refuse("more than %d names joined by dots", maxLinks)
		}
		if nesting > maxNesting {
			return refuse("brackets nest deeper than %d", maxNesting)
		}
		if tokens > maxTokens {
			return refuse("a policy of more than %d tokens", maxTokens)
		}
	}
	return nil
}

func isWord(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

var errString = errors.New("string without an end on its line")

// skipString returns the index after the string literal that begins at i.
func skipString(text []byte, i int) (int, error) {
	for i++; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++ // whatever is escaped, a quote too
		case '"':
			return i + 1, nil
		case '\n', '\r':
			return i, errString
		}
	}
	return i, errString
}

// lineAt is the number of the line, from 1, that the offset lies in.
func lineAt(text []byte, offset int) int {
	return 1 + bytes.Count(text[:min(offset, len(text))], []byte("\n"))
}
