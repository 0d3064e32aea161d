package cli

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/lateen-mesh/lateen/samples"
)

// newSampleCommand is `lateen sample`: small applications that stand in for the
// sites and services of examples. They read their own flags, as they do in the
// program lateen-sample.
func newSampleCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sample",
		Short: "Run a sample application: httpbin, site, helloworld, tcp-echo, sleep",
		Long:  "Sample applications stand in for the sites and services of examples, so that these run without the internet.",
		Args:  cobra.ArbitraryArgs,
		RunE:  noCommand,
	}
	for _, sample := range samples.Commands() {
		cmd.AddCommand(&cobra.Command{
			Use: sample.Name, Short: sample.Short, DisableFlagParsing: true,
			RunE: func(cmd *cobra.Command, args []string) error {
				return sampleError(sample.Run(cmd.Context(), args, cmd.ErrOrStderr()))
			},
		})
	}
	return cmd
}

// sampleError turns an application's error into one of ours.
func sampleError(err error) error {
	failure, ok := errors.AsType[*samples.Error](err)
	switch {
	case !ok || errors.Is(err, context.Canceled):
		return err
	case failure.Usage:
		return wrongUsage(failure.Err, failure.Hint)
	}
	return withHint(failure.Err, failure.Hint)
}
