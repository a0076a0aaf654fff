package cedar

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"

	"github.com/toolgrant/toolgrant/manifest"
)

// maxTree bounds the files and folders that are looked at in the folder of
// manifests: far more than there can be manifests.
const maxTree = 10_000

// treeOf is a fingerprint of all that decides what manifest.Load makes of a folder:
// the names and texts in it at any depth, where its links lead, and what cannot be
// read. Loading compiles every manifest, and costs some hundred times as much; this
// is cheap enough to do with each look. Of no folder, "", it is zero.
func treeOf(dir string) fingerprint {
	if dir == "" {
		return fingerprint{}
	}
	h := sha256.New()
	if root, err := os.OpenRoot(dir); err != nil {
		note(h, err)
	} else {
		defer root.Close()
		hashTree(h, root)
	}
	return fingerprint(h.Sum(nil))
}

func hashTree(h hash.Hash, root *os.Root) {
	left := maxTree
	// What the function is told of cannot be read is noted, so that it never fails.
	_ = fs.WalkDir(root.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		if left--; left < 0 {
			return fs.SkipAll
		}
		note(h, name, err)
		if e == nil {
			return nil
		}
		if e.Type()&fs.ModeSymlink != 0 {
			to, err := root.Readlink(name)
			note(h, to, err)
		}
		info, err := root.Stat(name) // of what a link leads to
		if err != nil {
			note(h, err)
			return nil
		}
		note(h, info.Mode())
		if !info.Mode().IsRegular() { // or else opening it could wait, as at a named pipe
			return nil
		}
		text, err := readSome(root, name)
		note(h, text, info.Size(), err) // a file over the bound is refused whatever is behind it
		return nil
	})
}

func readSome(root *os.Root, name string) ([]byte, error) {
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, manifest.MaxFile+1))
}

// note adds parts, each with its length, so that no two lists run together.
func note(h hash.Hash, parts ...any) {
	for _, p := range parts {
		text, ok := p.([]byte)
		if !ok {
			text = fmt.Append(nil, p)
		}
		_ = binary.Write(h, binary.BigEndian, uint64(len(text)))
		h.Write(text)
	}
}
