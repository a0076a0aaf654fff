package manifest

import (
	"bytes"
	"errors"
	"slices"

	"github.com/toolgrant/toolgrant/confdir"
)

// Bounds of what is read.
const (
	MaxFile  = 64 << 10 // bytes of one manifest
	maxTotal = 1 << 20  // bytes of all manifests
	maxKinds = 1_000
)

type file struct {
	name string
	text []byte
}

// readFolder wants the same twice in a row.
func readFolder(read func() ([]file, error)) ([]file, error) {
	alike := func(a, b file) bool { return a.name == b.name && bytes.Equal(a.text, b.text) }
	same := func(a, b []file) bool { return slices.EqualFunc(a, b, alike) }
	return confdir.Twice(read, same, errors.New("the folder changed while it was being read"))
}

// readOnce reads the manifests of a folder, sorted by name: a kind whose manifest
// vanishes without a word is a kind without bounds.
func readOnce(dir string) ([]file, error) {
	all, err := confdir.Rules{
		Suffix:   ".yaml",
		Alike:    []string{".yml"},
		MaxFile:  MaxFile,
		MaxTotal: maxTotal,
		MaxFiles: maxKinds,
		Words: confdir.Words{
			Files:      "manifests",
			Content:    "manifests",
			Folder:     "folder of manifests",
			SubFolder:  "sub-folder",
			SubFolders: "sub-folders",
		},
	}.Read(dir)
	var files []file
	for _, f := range all.Files {
		files = append(files, file{f.Name, f.Text})
	}
	return files, err
}
