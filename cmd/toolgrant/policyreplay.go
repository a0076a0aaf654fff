package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/toolgrant/toolgrant/replay"
)

func policyReplayCommand() *cobra.Command {
	var (
		config              configFlag
		policies, manifests string
		auditFile, inputs   string
		asJSON, failOnFlip  bool
	)
	cmd := &cobra.Command{
		Use:   "replay --policies DIR [--manifests DIR] [--audit FILE] [--inputs FILE] [--config FILE]",
		Short: "Decide what was decided again, by other policies",
		Long: `Put the questions that policy was asked to the policies of another folder, and
print which answers flip: what would be denied that was allowed, and the other
way round, by the policies that make the difference.

It takes the decisions from the audit log, and what policy saw from the file
that audit.inputs keeps. A decision without its inputs, or of which a part was
redacted, is counted and not guessed. Nothing is changed, and no broker is asked.`,
		Example: `  # audit: {file: audit.jsonl, inputs: inputs.jsonl}   in toolgrant.yaml, for a while; then
  toolgrant policy replay --policies candidate/
  toolgrant policy replay --policies candidate/ --fail-on-flip    # exit code 3 if an answer flips`,
		Args: operands(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if policies == "" && manifests == "" {
				return usagef("--policies is missing: the folder of the policies to decide by (or --manifests, that of other manifests)")
			}
			cfg, err := config.load()
			if err != nil {
				return err
			}
			if policies != "" {
				cfg.Policies = policies
			}
			if manifests != "" {
				cfg.Manifests = manifests
			}
			set, tools, err := readPolicies(cfg)
			if err != nil {
				return err
			}
			if auditFile == "" {
				auditFile = cfg.Audit.File
			}
			if inputs == "" {
				if inputs = cfg.Audit.Inputs; inputs == "" {
					return usagef("--inputs is missing, and the configuration does not keep any (audit.inputs)")
				}
			}
			log, err := openFile(auditFile)
			if err != nil {
				return err
			}
			defer log.Close()
			asked, err := openFile(inputs)
			if err != nil {
				return err
			}
			defer asked.Close()
			report, err := replay.Replay(cmd.Context(), replay.Config{Audit: log, Inputs: asked, Decide: set.Decide, Catalog: tools})
			if err != nil {
				return err
			}
			return printReport(cmd, report, asJSON, failOnFlip)
		},
	}
	config.register(cmd)
	cmd.Flags().StringVar(&policies, "policies", "", "`DIR` with the policies to decide by (default those of the configuration)")
	cmd.Flags().StringVar(&manifests, "manifests", "", "`DIR` with the manifests to decide by (default those of the configuration)")
	cmd.Flags().StringVar(&auditFile, "audit", "", "`FILE` with the decisions (default audit.file of the configuration)")
	cmd.Flags().StringVar(&inputs, "inputs", "", "`FILE` with what policy was asked (default audit.inputs of the configuration)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the report as JSON")
	cmd.Flags().BoolVar(&failOnFlip, "fail-on-flip", false, "exit with code 3 if an answer flips")
	return cmd
}

func policyShadowCommand() *cobra.Command {
	var (
		config             configFlag
		file               string
		asJSON, failOnFlip bool
	)
	cmd := &cobra.Command{
		Use:   "shadow [--file FILE] [--config FILE]",
		Short: "Show where the candidate policies would have decided otherwise",
		Long: `A shadow is a set of policies beside the one that decides: it is asked the same,
and where it would answer otherwise that is written down, and nothing else
happens. In the configuration:

  shadow:
    policies: candidate/        # and manifests: …, where these differ, too
    file: shadow.jsonl

This prints the differences by the policies that make them, and how many
questions were answered alike. The candidate is read again when it changes.`,
		Example: `  toolgrant policy shadow
  toolgrant policy shadow --json | jq .counts`,
		Args: operands(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				cfg, err := config.load()
				if err != nil {
					return err
				}
				if file = cfg.Shadow.File; file == "" {
					return usagef("%s has no shadow: write shadow: {policies: DIR}, or name a file by --file", config.path())
				}
			}
			f, err := openFile(file)
			if err != nil {
				return err
			}
			defer f.Close()
			report, err := replay.Summarise(f)
			if err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
			return printReport(cmd, report, asJSON, failOnFlip)
		},
	}
	config.register(cmd)
	cmd.Flags().StringVar(&file, "file", "", "`FILE` with the differences (default shadow.file of the configuration)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the report as JSON")
	cmd.Flags().BoolVar(&failOnFlip, "fail-on-flip", false, "exit with code 3 if an answer differs")
	return cmd
}

func printReport(cmd *cobra.Command, r replay.Report, asJSON, failOnFlip bool) error {
	print := func() error { return output(cmd, r.String()) }
	if asJSON {
		print = func() error { return printJSON(cmd, r) }
	}
	if err := print(); err != nil {
		return err
	}
	switch {
	case !failOnFlip:
		return nil
	case r.Flipped() > 0:
		return &commandExit{code: exitRefused}
	case r.Counts.Same == 0:
		return errors.New("no answer was compared, so that it is not known whether one flips")
	}
	return nil
}
