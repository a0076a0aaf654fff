package main

import (
	"github.com/spf13/cobra"

	"github.com/toolgrant/toolgrant/authz"
	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/envoy"
)

func envoyCommand() *cobra.Command {
	var (
		config   configFlag
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
			cfg, err := config.load()
			if err != nil {
				return err
			}
			tools, err := catalog.Load(cfg.Catalogue)
			if err != nil {
				return usageError(err)
			}
			render := envoy.Config
			if fragment {
				render = envoy.Fragment
			}
			text, err := render(envoyOptions(cfg, tools))
			if err != nil {
				return usageError(err)
			}
			return output(cmd, string(text))
		},
	}
	config.register(cmd)
	cmd.Flags().BoolVar(&fragment, "fragment", false, "only the parts that go into a configuration of your own")
	return cmd
}

// envoyOptions is what Envoy's configuration is made from.
func envoyOptions(cfg *Config, tools *catalog.Catalog) envoy.Options {
	e := cfg.Envoy
	return envoy.Options{
		Catalog: tools, Listen: e.Listen, Authz: e.Authz, Surface: e.Surface, Issuer: cfg.Broker.Issuer,
		CredentialHeader: cfg.Token.Header, MaxBody: authz.DefaultMaxBody, // what serve takes
		TLS: envoy.ListenerTLS{
			CertFile: e.TLS.Cert, KeyFile: e.TLS.Key, ClientCAFile: e.TLS.ClientCA, RequireClientCert: e.TLS.Require,
		},
		AuthzTLS: envoy.AuthzTLS{
			CertFile: e.AuthzTLS.Cert, KeyFile: e.AuthzTLS.Key, CAFile: e.AuthzTLS.CA, ServerName: e.AuthzTLS.ServerName,
		},
	}
}
