package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/toolgrant/toolgrant/authz"
	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/envoy"
)

func envoyCommand() *cobra.Command {
	var (
		file     string
		fragment bool
	)
	cmd := &cobra.Command{
		Use:   "envoy [--config FILE] [--fragment]",
		Short: "Print Envoy's configuration",
		Long: `Print a configuration for Envoy, made from the catalogue: a listener with one
route for each tool, and the check in front of all of them. It is whole and can
be run as it is; --fragment prints the parts for an Envoy that you already have.

Print it again when the catalogue changes.`,
		Example: `  toolgrant envoy --config toolgrant.yaml > envoy.yaml
  envoy -c envoy.yaml

  # For an Envoy that is already there; comments say where each part goes.
  toolgrant envoy --config toolgrant.yaml --fragment`,
		Args: operands(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, err := LoadConfig(file)
			if err != nil {
				return err
			}
			tools, err := catalog.Load(config.Catalogue)
			if err != nil {
				return usageError(err)
			}
			render := envoy.Config
			if fragment {
				render = envoy.Fragment
			}
			text, err := render(envoy.Options{
				Catalog:          tools,
				Listen:           config.Envoy.Listen,
				Authz:            config.Authz.Listen,
				CredentialHeader: config.Token.Header,
				MaxBody:          authz.DefaultMaxBody, // what serve takes
			})
			if err != nil {
				return usageError(err)
			}
			if _, err := cmd.OutOrStdout().Write(text); err != nil {
				return fmt.Errorf("writing the result: %w", err)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&file, "config", "toolgrant.yaml", "configuration `FILE`, as for serve")
	cmd.Flags().BoolVar(&fragment, "fragment", false, "only the parts that go into a configuration of your own")
	return cmd
}
