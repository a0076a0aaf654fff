package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/manifest"
	"github.com/toolgrant/toolgrant/replay"
)

func manifestCommand() *cobra.Command {
	return group("manifest", "Check, explain and propose grant manifests",
		manifestCheckCommand(), manifestExplainCommand(), manifestSuggestCommand())
}

func manifestCheckCommand() *cobra.Command {
	var config configFlag
	cmd := &cobra.Command{
		Use:   "check [--config FILE] [DIR]",
		Short: "Read the manifests as serve does",
		Long: `Read the grant manifests of the folder that the configuration names, or of DIR,
with its catalogue, as serve does: what would not load there does not load here.
Each fault is told with its file, line and column.

A manifest says what a kind of task may have: which tools, with which arguments,
how often, how much and how long. docs/grant-manifest.md describes it. Who may
start such a task, and be granted what it has, is for policies to say:
"toolgrant policy check" looks at both together.`,
		Example: `  toolgrant manifest check
  toolgrant manifest check --config toolgrant.yaml candidates/`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("one folder at most: %s", strings.Join(args, " "))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			set, dir, err := loadManifests(&config, args...)
			if err != nil {
				return err
			}
			kinds := set.Kinds()
			if len(kinds) == 0 {
				return printLine(cmd, dir+": no manifest in it: no kind of task has a ceiling")
			}
			return printLine(cmd, fmt.Sprintf("%s: %d manifests are in order: %s; digest %s", dir, len(kinds), strings.Join(kinds, ", "), set.Digest()))
		},
	}
	config.register(cmd)
	return cmd
}

func manifestExplainCommand() *cobra.Command {
	var (
		config configFlag
		params paramFlags
	)
	cmd := &cobra.Command{
		Use:   "explain KIND [--param NAME=TEXT]... [--config FILE]",
		Short: "Say in words what a kind of task may have",
		Long: `Say in words what a kind of task may have by its manifest, and print the JSON
Schema that each tool's arguments are held to. Without parameters their names
stand in their places; with them it is what a task with these would get.

It is a ceiling: policy decides about each grant as well.`,
		Example: `  toolgrant manifest explain pay-bill
  toolgrant manifest explain pay-bill --param recipient=ACME --param limit:=100`,
		Args: operands("KIND"),
		RunE: func(cmd *cobra.Command, args []string) error {
			set, _, err := loadManifests(&config)
			if err != nil {
				return err
			}
			m, ok := set.Kind(args[0])
			if !ok {
				return usagef("no manifest is of the kind %q; there are %s", args[0], strings.Join(set.Kinds(), ", "))
			}
			values, err := params.object(cmd)
			if err != nil {
				return err
			}
			if values != nil {
				if values, err = m.ReadParams(values); err != nil {
					return usageError(params.typeHint(err))
				}
			}
			text, err := m.Explain(values)
			if err != nil {
				return usageError(err)
			}
			return output(cmd, text)
		},
	}
	config.register(cmd)
	params.register(cmd)
	return cmd
}

func manifestSuggestCommand() *cobra.Command {
	var (
		config configFlag
		inputs string
	)
	cmd := &cobra.Command{
		Use:   "suggest KIND [--inputs FILE] [--config FILE]",
		Short: "Propose a manifest from calls that were recorded",
		Long: `Read the calls that tasks of a kind made and were allowed, from the file that
audit.inputs keeps, and print the narrowest manifest that covers them, with a
comment for each thing that it pins and why. Nothing is put in force.

Read it before you use it: it knows the calls that were made, not those that
were meant. An agent that was talked into something while it was recorded has
taught it that, too; and what was not recorded will be refused.`,
		Example: `  # audit: {file: audit.jsonl, inputs: inputs.jsonl}   in toolgrant.yaml, for a while; then
  toolgrant manifest suggest pay-bill > proposed/pay-bill.yaml     # not into the folder that serve reads
  toolgrant manifest check proposed/`,
		Args: operands("KIND"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := config.load()
			if err != nil {
				return err
			}
			tools, err := catalog.Load(cfg.Catalogue)
			if err != nil {
				return usageError(err)
			}
			if inputs == "" {
				if inputs = cfg.Audit.Inputs; inputs == "" {
					return usagef("--inputs is missing, and the configuration does not keep any (audit.inputs)")
				}
			}
			f, err := openFile(inputs)
			if err != nil {
				return err
			}
			defer f.Close()
			calls, err := recordedCalls(f, args[0])
			if err != nil {
				return fmt.Errorf("%s: %w", inputs, err)
			}
			if len(calls) == 0 {
				return fmt.Errorf("%s: no allowed call of a task of the kind %q is in it", inputs, args[0])
			}
			s, err := manifest.Suggest(args[0], calls, tools)
			if err != nil {
				return err
			}
			for _, note := range s.Notes {
				fmt.Fprintln(cmd.ErrOrStderr(), "note:", printable(note))
			}
			return output(cmd, s.YAML)
		},
	}
	config.register(cmd)
	cmd.Flags().StringVar(&inputs, "inputs", "", "`FILE` with what policy was asked (default audit.inputs of the configuration)")
	return cmd
}

// recordedCalls are the calls of tasks of a kind that policy allowed inside a
// grant. A call that was asked about twice, because the policies had changed, is
// one.
func recordedCalls(r io.Reader, kind string) ([]manifest.Call, error) {
	type asked struct{ decision, tool string }
	at := map[asked]int{} // -> its place in calls
	var calls []manifest.Call
	for line, err := range replay.Read(r) {
		if errors.Is(err, replay.ErrTorn) {
			break // the last line of a file that is being written to
		}
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(line.Questions, func(q replay.Question) bool { return !q.Decision.Allow }) {
			continue // the call, or its grant, was refused
		}
		for _, q := range line.Questions {
			in := q.Input
			if in.Task == nil || in.Task.Kind != kind || !strings.HasPrefix(in.Action, grants.ActionCall) {
				continue
			}
			call := manifest.Call{
				Task: in.Task.ID, Tool: in.Tool, Input: in.Args, Params: in.Task.Params, Without: slices.Concat(q.Opaque, q.Redacted),
			}
			if i, twice := at[asked{line.ID, in.Tool}]; twice {
				calls[i] = call
				continue
			}
			at[asked{line.ID, in.Tool}] = len(calls)
			calls = append(calls, call)
		}
	}
	return calls, nil
}

// loadManifests reads the manifests of a folder, or of the configuration's.
func loadManifests(config *configFlag, dirs ...string) (*manifest.Set, string, error) {
	cfg, err := config.load()
	if err != nil {
		return nil, "", err
	}
	tools, err := catalog.Load(cfg.Catalogue)
	if err != nil {
		return nil, "", usageError(err)
	}
	dir := cfg.Manifests
	if len(dirs) > 0 {
		dir = dirs[0]
	}
	if dir == "" {
		return nil, "", usagef("%s names no folder of manifests, and there is none beside it: write manifests: DIR", config.path())
	}
	set, err := manifest.Load(dir, tools)
	if err != nil {
		return nil, "", usageError(err)
	}
	return set, dir, nil
}
