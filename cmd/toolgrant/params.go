package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// paramFlags are the parameters of a task, as the manifest of its kind has them.
type paramFlags struct {
	params []string
	file   string
}

func (p *paramFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&p.params, "param", nil, "`NAME=TEXT`, or NAME:=JSON for what is no text (limit:=100), a parameter of the task; may be repeated")
	cmd.Flags().StringVar(&p.file, "params", "", "`FILE` with all parameters, a JSON object, or - for stdin")
}

// object is the parameters as one JSON object; nil: none were given.
func (p *paramFlags) object(cmd *cobra.Command) (json.RawMessage, error) {
	if p.file != "" {
		if len(p.params) > 0 {
			return nil, usagef("--param and --params: choose one")
		}
		doc, err := readInput(cmd.InOrStdin(), p.file)
		if err != nil {
			return nil, usageError(err)
		}
		return json.RawMessage(doc), nil
	}
	if len(p.params) == 0 {
		return nil, nil
	}
	members := make([]string, 0, len(p.params))
	seen := map[string]bool{}
	for _, text := range p.params {
		name, value, ok := strings.Cut(text, "=")
		name, raw := strings.CutSuffix(name, ":")
		switch {
		case !ok || name == "":
			return nil, usagef("--param %s: write NAME=TEXT, or NAME:=JSON for a number, true, false or a list", printable(text))
		case seen[name]:
			return nil, usagef("--param %s is there twice", printable(name))
		case raw && !json.Valid([]byte(value)):
			return nil, usagef("--param %s: what follows := is not JSON; a text is written %s=TEXT", printable(text), printable(name))
		case !raw:
			value = quoteJSON(value)
		}
		seen[name] = true
		members = append(members, quoteJSON(name)+":"+value)
	}
	return json.RawMessage("{" + strings.Join(members, ",") + "}"), nil
}

func quoteJSON(s string) string {
	b, err := json.Marshal(s)
	if err != nil { // of a string there is none
		return `""`
	}
	return string(b)
}

// typeHint adds how numbers are given, where the broker did not take a text.
func (p *paramFlags) typeHint(err error) error {
	if len(p.params) > 0 && err != nil && strings.Contains(err.Error(), "must be of type") {
		return fmt.Errorf("%w (--param NAME=TEXT gives a text; a number, true, false or a list is --param NAME:=JSON)", err)
	}
	return err
}

// openFile opens a file that the user named.
func openFile(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, usageError(err)
	}
	return f, nil
}
