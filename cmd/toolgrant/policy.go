package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/cedar"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/manifest"
)

const maxPolicyInput = 1 << 20 // bytes

func policyCommand() *cobra.Command {
	return group("policy", "Check policies, and try them out",
		policyCheckCommand(), policyTestCommand(), policyExplainCommand(), policyReplayCommand(), policyShadowCommand(),
		policySchemaCommand(), policyExampleCommand())
}

func policyCheckCommand() *cobra.Command {
	var (
		config configFlag
		input  string
		strict bool
	)
	cmd := &cobra.Command{
		Use:   "check [--config FILE] [--strict | --input FILE]",
		Short: "Load the policies as serve does, and decide a question",
		Long: `Load the policies and entities that the configuration names, with its catalogue
and groups, as serve does: what would not load there does not load here, for the
same reasons. No broker is asked. What loads and is probably not meant is warned
of on stderr, and stdout also says what may be called without a grant, by which
policy: that is the baseline. With --strict a warning makes the exit code 3.

With --input, decide one question by them: a JSON document as "toolgrant policy
example-input" prints it. The answer is one line on stdout, "allow" or "deny"
with the ids of the policies that made it, and exit code 0 or 3. Who the agents
are is read from the document, and believed.`,
		Example: `  toolgrant policy check --config toolgrant.yaml

  # May this agent have this tool? Print a question, edit it, ask it.
  toolgrant policy example-input grant --tool reports/export > ask.json
  toolgrant policy check --input ask.json`,
		Args: operands(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			set, cfg, err := loadPolicies(&config)
			if err != nil {
				return err
			}
			if input != "" && strict {
				return usagef("--strict is about the whole set, and --input is one question: choose one")
			}
			if input == "" {
				for _, w := range set.Warnings() {
					fmt.Fprintln(cmd.ErrOrStderr(), "warning:", printable(w))
				}
				err := output(cmd, fmt.Sprintf("%s: %d policies are in order: %s; revision %s\n%s%s",
					cfg.Policies, len(set.Policies()), strings.Join(set.Policies(), ", "), set.Revision(), baselineText(set.Baseline()), deniedText(set)))
				if err == nil && strict && len(set.Warnings()) > 0 {
					return &commandExit{code: exitRefused}
				}
				return err
			}
			doc, err := readInput(cmd.InOrStdin(), input)
			if err != nil {
				return usageError(err)
			}
			d, err := set.DecideExample(doc)
			if err != nil {
				return usageError(err)
			}
			answer := "allow"
			if !d.Allow {
				answer = "deny (" + d.Reason.String() + ")"
			}
			by := ""
			switch {
			case len(d.Policies) > 0:
				by = ", by " + strings.Join(d.Policies, ", ")
			case d.Reason == grants.Policy:
				by = ", none permits it"
			}
			if err := printLine(cmd, answer+by); err != nil || d.Allow {
				return err
			}
			return &commandExit{code: exitRefused}
		},
	}
	config.register(cmd)
	cmd.Flags().StringVar(&input, "input", "", "`FILE` with a question to decide, or - for stdin")
	cmd.Flags().BoolVar(&strict, "strict", false, "exit with code 3 if there is a warning")
	return cmd
}

// baselineText says in a line for each policy what it may permit without a grant.
func baselineText(permits []cedar.Permit) string {
	if len(permits) == 0 {
		return "without a grant: nothing may be called\n"
	}
	var b strings.Builder
	for _, p := range permits {
		fmt.Fprintf(&b, "without a grant: policy %q (%s) may permit %s\n", p.ID, printable(p.At), strings.Join(slices.Concat(p.Tools, p.Methods), ", "))
	}
	return b.String()
}

// deniedText says which tools nobody can call.
func deniedText(set *cedar.Set) string {
	tools, known := set.Denied()
	if !known || len(tools) == 0 {
		return ""
	}
	return "nobody can call: " + strings.Join(tools, ", ") + "\n"
}

func policySchemaCommand() *cobra.Command {
	var config configFlag
	cmd := &cobra.Command{
		Use:   "schema [--config FILE]",
		Short: "Print the Cedar schema of the policies",
		Long: `Print the schema that the policies are held to, in Cedar's own format. It is made
from the catalogue and the manifests: each tool has an action, whose context.input
has the types of the tool's input. Editors and Cedar's command line take it.`,
		Example: `  toolgrant policy schema > toolgrant.cedarschema
  cedar validate --schema toolgrant.cedarschema --policies policies/issue.cedar`,
		Args: operands(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.load()
			if err != nil {
				return err
			}
			tools, err := catalog.Load(cfg.Catalogue)
			if err != nil {
				return usageError(err)
			}
			var manifests *manifest.Set
			if cfg.Manifests != "" {
				if manifests, err = manifest.Load(cfg.Manifests, tools); err != nil {
					return usageError(err)
				}
			}
			text, err := cedar.SchemaText(tools, manifests)
			if err != nil {
				return err
			}
			return output(cmd, string(text))
		},
	}
	config.register(cmd)
	return cmd
}

func policyExampleCommand() *cobra.Command {
	var (
		config       configFlag
		tool, server string
	)
	cmd := &cobra.Command{
		Use:   "example-input ACTION [--tool SERVER/TOOL | --server SERVER]",
		Short: "Print a question to policy, with all that it can see",
		Long: `Print a question as policy is asked it, with a plausible value for everything that
it can see, and names that the policies know. ACTION is start_task, end_task,
grant, ask_for, revoke or call; all but the first two are about a tool. Or it is
mcp:METHOD, such as mcp:resources/read, which is about an MCP server. Edit what is
printed, and decide it by "toolgrant policy check --input".`,
		Example: `  toolgrant policy example-input start_task
  toolgrant policy example-input call --tool reports/export
  toolgrant policy example-input mcp:resources/read --server notes`,
		Args:      operands("ACTION"),
		ValidArgs: []string{"start_task", "end_task", "grant", "ask_for", "revoke", "call"},
		RunE: func(cmd *cobra.Command, args []string) error {
			set, _, err := loadPolicies(&config)
			if err != nil {
				return err
			}
			if mcp := strings.HasPrefix(args[0], grants.ActionMCP); mcp && tool != "" || !mcp && server != "" {
				return usagef("--tool is for an action about a tool, and --server for one about an MCP server (mcp:METHOD)")
			}
			text, err := set.ExampleInput(args[0], cmp.Or(tool, server))
			if err != nil {
				return usageError(err)
			}
			return output(cmd, string(text))
		},
	}
	config.register(cmd)
	cmd.Flags().StringVar(&tool, "tool", "", "`SERVER/TOOL` that the question is about")
	cmd.Flags().StringVar(&server, "server", "", "MCP `SERVER` that the question is about")
	return cmd
}

func loadPolicies(config *configFlag) (*cedar.Set, *Config, error) {
	cfg, err := config.load()
	if err != nil {
		return nil, nil, err
	}
	set, _, err := readPolicies(cfg)
	return set, cfg, err
}

// readPolicies reads policies and manifests as serve does.
func readPolicies(cfg *Config) (*cedar.Set, *catalog.Catalog, error) {
	tools, err := catalog.Load(cfg.Catalogue)
	if err != nil {
		return nil, nil, usageError(err)
	}
	// Of the issuers only their names and groups matter: their keys may be elsewhere.
	var groups []string
	for _, issuer := range cfg.Identity.Issuers {
		for _, to := range issuer.Groups {
			groups = append(groups, to)
		}
	}
	slices.Sort(groups)
	set, err := cedar.Load(cedar.Config{
		Dir: cfg.Policies, Manifests: cfg.Manifests, Catalog: tools, Groups: slices.Compact(groups), Aliases: aliases(cfg),
	})
	if err != nil {
		return nil, nil, usageError(err)
	}
	return set, tools, nil
}

func readInput(stdin io.Reader, file string) ([]byte, error) {
	in := stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, maxPolicyInput+1))
	if err == nil && len(b) > maxPolicyInput {
		err = fmt.Errorf("%s: longer than %d bytes", file, maxPolicyInput)
	}
	return b, err
}
