package cli

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// levelNames are the levels of a proxy's log.
var levelNames = []string{"trace", "debug", "info", "warning", "warn", "error", "critical", "off"}

// loggerNames are the loggers of proxies, ours and Envoy's of the last years.
var loggerNames = strings.Fields(`a2a admin ai_protocol_manager alternate_protocols_cache assert aws backtrace basic_auth
	cache_filter client compression config conn_handler connection credential_injector decompression dns dubbo
	dynamic_modules envoy_bug ext_authz ext_proc file filter forward_proxy geolocation golang grpc happy_eyeballs hc
	health_checker http http2 hystrix init io ip_tagging json_rpc jwt kafka key_value_store local_rate_limit lua main
	matcher mcp misc mongo multi_connection notification oauth2 pool quic quic_stream rate_limit_quota rbac rds redis
	rocketmq router runtime secret sse stats stats_sinks tap testing thrift tracing udp upstream wasm websocket`)

// defaultLevel is that of a proxy in a mesh.
const defaultLevel = "warning"

// log is `proxy-config log`: shows and sets what proxies log.
func (p *proxyConfig) log() *cobra.Command {
	var level, selector string
	var reset bool
	cmd := &cobra.Command{
		Use: "log [POD[.NAMESPACE] | TYPE/NAME[.NAMESPACE]]", Aliases: []string{"o"}, Short: "Show or set the levels of a proxy's log",
		Args: arguments(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if (len(args) == 0) == (selector == "") {
				return wrongUsage(errors.New("log requires pod name or --selector"), "for example: "+cmd.CommandPath()+" deploy/productpage-v1")
			}
			changes, err := levelChanges(level, reset)
			if err != nil {
				return wrongUsage(err, "levels: "+strings.Join(levelNames, ", ")+"; the proxy's loggers: "+cmd.CommandPath()+" POD")
			}
			return p.setLevels(cmd, args, selector, changes)
		},
	}
	cmd.Flags().StringVar(&level, "level", "", "[LOGGER:]LEVEL of all loggers or of one, several with commas")
	cmd.Flags().BoolVarP(&reset, "reset", "r", false, "set all loggers to "+defaultLevel)
	cmd.Flags().StringVarP(&selector, "selector", "l", "", "label selector, in place of the pod")
	return cmd
}

// levelChanges are the queries of /logging that bring about what --level and --reset say.
func levelChanges(level string, reset bool) ([]string, error) {
	var changes []string
	if reset {
		changes = append(changes, "level="+defaultLevel)
	}
	if level == "" {
		return changes, nil
	}
	for item := range strings.SplitSeq(level, ",") {
		logger, value, named := strings.Cut(item, ":")
		if !named {
			logger, value = "level", item
		} else if !slices.Contains(loggerNames, logger) {
			return nil, fmt.Errorf("unrecognized logger name: %s", logger)
		}
		if !slices.Contains(levelNames, value) {
			return nil, fmt.Errorf("unrecognized logging level: %s", value)
		}
		changes = append(changes, url.Values{logger: {value}}.Encode())
	}
	// that of all comes first: it would undo the others
	slices.SortStableFunc(changes, func(a, b string) int {
		return boolOrder(strings.HasPrefix(b, "level=")) - boolOrder(strings.HasPrefix(a, "level="))
	})
	return changes, nil
}

func boolOrder(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (p *proxyConfig) setLevels(cmd *cobra.Command, args []string, selector string, changes []string) error {
	ctx := cmd.Context()
	api, _, err := p.open(ctx)
	if err != nil {
		return err
	}
	namespace, err := p.namespaceInForce()
	if err != nil {
		return err
	}
	var pods []*corev1.Pod
	for _, name := range args {
		pod, err := findPod(ctx, api.API(), name, namespace)
		if err != nil {
			return err
		}
		pods = append(pods, pod)
	}
	if selector != "" {
		list, err := api.API().CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: selector, FieldSelector: "status.phase=Running"})
		if err != nil {
			return err
		}
		for i := range list.Items {
			pods = append(pods, &list.Items[i])
		}
		if len(pods) == 0 {
			return withHint(fmt.Errorf("no pod in namespace %s has the labels %s", namespace, selector), "see: kubectl get pods --show-labels -n "+namespace)
		}
	}
	for _, pod := range pods {
		var text []byte
		for _, change := range append(slices.Clone(changes), "") {
			if text, err = p.ask(ctx, api, pod, http.MethodPost, "/logging?"+change); err != nil {
				return err
			}
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s.%s:\n%s", pod.Name, pod.Namespace, text)
	}
	return nil
}
