package agent

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/lateen-mesh/lateen/wellknown"
)

// waiting is how `pilot-agent wait` waits.
type waiting struct {
	url                      string
	timeout, period, request int
}

// newWaitCommand is `pilot-agent wait`, which a lifecycle hook of the proxy's container runs where
// the application is to start after the proxy.
func newWaitCommand() *cobra.Command {
	var w waiting
	cmd := &cobra.Command{
		Use: "wait", Short: "Wait until the proxy is ready", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return w.run(cmd.Context()) },
	}
	set := cmd.Flags()
	set.StringVar(&w.url, "url", "http://localhost:"+strconv.Itoa(wellknown.ProxyStatusPort)+"/healthz/ready", "page that says so")
	set.IntVar(&w.timeout, "timeoutSeconds", 60, "most seconds to wait")
	set.IntVar(&w.period, "periodMillis", 500, "milliseconds between requests")
	set.IntVar(&w.request, "requestTimeoutMillis", 500, "most milliseconds for one request")
	return cmd
}

func (w *waiting) run(ctx context.Context) error {
	if w.timeout <= 0 || w.period <= 0 || w.request <= 0 {
		return fmt.Errorf("wait: times must be positive: --timeoutSeconds %d, --periodMillis %d, --requestTimeoutMillis %d", w.timeout, w.period, w.request)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(w.timeout)*time.Second)
	defer cancel()
	client := &http.Client{Timeout: time.Duration(w.request) * time.Millisecond, Transport: &http.Transport{DisableKeepAlives: true}}
	tick := time.NewTicker(time.Duration(w.period) * time.Millisecond)
	defer tick.Stop()
	for {
		err := once(ctx, client, w.url)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("the proxy is not ready after %d s: %w", w.timeout, err)
		}
	}
}

func once(ctx context.Context, client *http.Client, url string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	answer, err := client.Do(r)
	if err != nil {
		return err
	}
	_ = answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", url, answer.Status)
	}
	return nil
}
