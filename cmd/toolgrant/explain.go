package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/toolgrant/toolgrant/audit"
)

func explainCommand() *cobra.Command {
	var (
		config configFlag
		file   string
	)
	cmd := &cobra.Command{
		Use:   "explain DECISION [--config FILE | --audit FILE]",
		Short: "Say in words what was decided, and why",
		Long: `Find a decision in the audit log, and say in words who asked for what, what the
answer was, why, and what can be done about it. DECISION is the decision_id that
a denied caller was given.

This says more than the caller was told: it is for who may read the log.`,
		Example: `  toolgrant explain d_k3v6w7yz2m4n5p6q7r2s3t4u5v
  toolgrant explain d_k3v6w7yz2m4n5p6q7r2s3t4u5v --audit /var/log/toolgrant/audit.jsonl`,
		Args: operands("DECISION"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if file != "" && config.file != "" {
				return usagef("--config and --audit: choose one")
			}
			if file == "" {
				cfg, err := config.load()
				if err != nil {
					return err
				}
				file = cfg.Audit.File
			}
			f, err := os.Open(file)
			if err != nil {
				return usageError(err)
			}
			defer f.Close()
			records, err := audit.Find(f, args[0])
			if len(records) > 0 {
				if err := output(cmd, audit.Explain(records)); err != nil {
					return err
				}
			}
			switch {
			case errors.Is(err, audit.ErrNotFound):
				return fmt.Errorf("%s: %w", file, err)
			case err != nil:
				return fmt.Errorf("%s: %w; \"toolgrant audit verify\" says more", file, err)
			}
			return nil
		},
	}
	config.register(cmd)
	cmd.Flags().StringVar(&file, "audit", "", "audit `FILE` (default the configuration's)")
	return cmd
}
