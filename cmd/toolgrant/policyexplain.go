package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/toolgrant/toolgrant/cedar"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/replay"
)

func policyExplainCommand() *cobra.Command {
	var (
		config                  configFlag
		input, decision, inputs string
		values                  bool
	)
	cmd := &cobra.Command{
		Use:   "explain (--input FILE | --decision ID [--inputs FILE]) [--values] [--config FILE]",
		Short: "Say why policy answers a question so, and what would have to differ",
		Long: `Put one question to the policies, and say which of them mattered: whether each
one's scope fits, which of its conditions held, and what would have to differ for
another answer. The policies are those that are there now.

The question is a JSON document as "toolgrant policy example-input" prints it, or
one that was asked while audit.inputs was on, by the decision_id that a denied
caller was given. Of that, what the catalogue redacts is not kept: such a question
cannot be put again, and is not. Of arguments and parameters only the types are
told; --values shows them, to those who may see what agents work on.

"toolgrant explain" says of any decision what the audit log has of it.`,
		Example: `  toolgrant policy example-input grant --tool reports/export > ask.json
  toolgrant policy explain --input ask.json

  toolgrant policy explain --decision d_k3v6w7yz2m4n5p6q7r2s3t4u5v`,
		Args: operands(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case (input == "") == (decision == ""):
				return usagef("say which question: --input FILE, or --decision ID")
			case inputs != "" && decision == "":
				return usagef("--inputs is where --decision is looked for")
			}
			set, cfg, err := loadPolicies(&config)
			if err != nil {
				return err
			}
			if decision != "" {
				if inputs == "" {
					inputs = cfg.Audit.Inputs
				}
				text, err := explainDecision(set, decision, inputs, values)
				if err != nil {
					return err
				}
				return output(cmd, text)
			}
			doc, err := readInput(cmd.InOrStdin(), input)
			if err != nil {
				return usageError(err)
			}
			e, err := set.ExplainExample(doc)
			if err != nil {
				return usageError(err)
			}
			return output(cmd, explained(e, values))
		},
	}
	config.register(cmd)
	cmd.Flags().StringVar(&input, "input", "", "`FILE` with the question, or - for stdin")
	cmd.Flags().StringVar(&decision, "decision", "", "`ID` of a decision whose questions are put again")
	cmd.Flags().StringVar(&inputs, "inputs", "", "`FILE` with what policy was asked (default audit.inputs of the configuration)")
	cmd.Flags().BoolVar(&values, "values", false, "show arguments and parameters, too")
	return cmd
}

// explainDecision puts all questions of a decision to the policies again.
func explainDecision(set *cedar.Set, id, file string, values bool) (string, error) {
	if !grants.ValidID(id, grants.DecisionPrefix) {
		return "", usageError(fmt.Errorf("%q is no decision_id: it is %s and 26 letters and digits", printable(id), grants.DecisionPrefix))
	}
	if file == "" {
		return "", usageError(errors.New("there is no file of inputs: the configuration has no audit.inputs; name one by --inputs"))
	}
	f, err := os.Open(file)
	if err != nil {
		return "", usageError(err)
	}
	defer f.Close()
	var b strings.Builder
	unread := 0
	for line, err := range replay.Read(f) {
		if err != nil {
			unread++
			continue
		}
		if line.ID != id {
			continue
		}
		for i := range line.Questions {
			explainQuestion(&b, set, &line.Questions[i], values)
		}
	}
	if b.Len() > 0 {
		return b.String(), nil
	}
	more := ""
	if unread > 0 {
		more = fmt.Sprintf("; %d lines of it could not be read", unread)
	}
	return "", fmt.Errorf("%s: nothing of the decision %s is in it: it never came to policy, or inputs were not kept then%s", file, id, more)
}

// explainQuestion says what was answered then, and why it is answered so now.
func explainQuestion(b *strings.Builder, set *cedar.Set, q *replay.Question, values bool) {
	if b.Len() > 0 {
		b.WriteByte('\n')
	}
	fmt.Fprintf(b, "%s was answered: %s\n", printable(q.Input.Action), answerOf(q.Decision))
	if len(q.Redacted) > 0 {
		fmt.Fprintf(b, "It cannot be put again: the arguments %s are not kept.\n", printable(strings.Join(q.Redacted, ", ")))
		return
	}
	if now := set.Revision(); now != q.Decision.Revision {
		fmt.Fprintf(b, "The policies have changed since: that was by revision %s, and this is by %s.\n", q.Decision.Revision, now)
	}
	e, err := set.Explain(q.Input)
	if err != nil {
		fmt.Fprintf(b, "It cannot be put again: %s\n", printable(err.Error()))
		return
	}
	b.WriteString(explained(e, values))
}

// answerOf is a decision in a line.
func answerOf(d grants.Decision) string {
	o := testOutcome{allow: d.Refusal() == grants.None, reason: d.Refusal(), by: d.Policies}
	return printable(o.words())
}

// explained is an explanation fit for a terminal.
func explained(e cedar.Explanation, values bool) string {
	if values {
		e = e.WithValues()
	}
	return printableLines([]byte(e.String())) + "\n"
}
