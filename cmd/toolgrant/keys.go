package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/toolgrant/toolgrant/token"
)

func keysCommand() *cobra.Command {
	return group("keys", "Rotate the broker's signing keys", keysAddCommand())
}

func keysAddCommand() *cobra.Command {
	var (
		config configFlag
		in     ttlFlag
	)
	cmd := &cobra.Command{
		Use:   "add [--config FILE] [--in TIME]",
		Short: "Add a signing key, which takes over from the one in use",
		Long: `Add a signing key. A running broker sees it within seconds and signs with it
from its time on. Tokens of the key before it are accepted until the last of
them has ended (limits.max_ttl, and a minute), and then never.

Others that verify grant tokens by the broker's JWK set should have read it
before the key signs: give them the time with --in.

To drop a key that was stolen, remove its file: its tokens end at once.`,
		Example: `  toolgrant keys add --config toolgrant.yaml --in 10m`,
		Args:    operands(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.load()
			if err != nil {
				return err
			}
			begin := time.Now().Add(in.Duration)
			if err := token.AddKey(cfg.Keys.Dir, cfg.Keys.Alg, begin); err != nil {
				return usageError(err)
			}
			return printLine(cmd, fmt.Sprintf("a key of %s was added; it signs from %s", cfg.Keys.Dir, begin.Local().Format(time.RFC3339)))
		},
	}
	config.register(cmd)
	cmd.Flags().Var(&in, "in", "`TIME` until it signs, such as 10m (default at once)")
	return cmd
}
