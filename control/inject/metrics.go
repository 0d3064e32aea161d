package inject

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

const (
	scrapeEnv         = "ISTIO_PROMETHEUS_ANNOTATIONS"
	annotationMerge   = "prometheus.istio.io/merge-metrics"
	annotationTargets = "prometheus.istio.io/scrape-targets"
	prometheusScrape  = "prometheus.io/scrape"
	prometheusPort    = "prometheus.io/port"
	prometheusPath    = "prometheus.io/path"
	metricsPath       = "/stats/prometheus"
)

// A scrape tells the agent where the application's own metrics are. Targets, where there are
// any, are all of them; Port and Path are then the first.
type scrape struct {
	Scrape  string   `json:"scrape"`
	Path    string   `json:"path"`
	Port    string   `json:"port"`
	Targets []target `json:"targets,omitempty"`
}

type target struct {
	Port string `json:"port"`
	Path string `json:"path"`
}

// mergeMetrics sends scrapers to the agent, which answers with its own metrics, the proxy's
// and the application's, unless mesh or pod do not want that.
func (p *injection) mergeMetrics() error {
	merge := p.Mesh.GetEnablePrometheusMerge()
	if merge != nil && !merge.GetValue() || strings.EqualFold(p.pod.Annotations[annotationMerge], "false") {
		return nil
	}
	agent := findContainer(p.pod, ProxyContainer)
	port := strconv.Itoa(int(p.proxy.GetStatusPort()))
	given := scrape{
		Scrape: hint(p.pod.Annotations, prometheusScrape), Port: hint(p.pod.Annotations, prometheusPort), Path: hint(p.pod.Annotations, prometheusPath),
	}
	if agent == nil || port == "0" || given.Scrape == "false" {
		return nil
	}
	if given.Port == port && given.Path == metricsPath { // injected before
		return p.keepEnv(agent, scrapeEnv)
	}
	if err := given.parseTargets(p.pod.Annotations[annotationTargets]); err != nil {
		return err
	}
	if given.Scrape != "" || given.Port != "" || given.Path != "" {
		text, err := json.Marshal(given)
		if err != nil {
			return err
		}
		agent.Env = append(agent.Env, corev1.EnvVar{Name: scrapeEnv, Value: string(text)})
	}
	if p.pod.Annotations == nil {
		p.pod.Annotations = map[string]string{}
	}
	delete(p.pod.Annotations, annotationTargets)
	p.pod.Annotations[prometheusScrape] = "true"
	p.pod.Annotations[prometheusPort] = port
	p.pod.Annotations[prometheusPath] = metricsPath
	return nil
}

// hint is an annotation for scrapers, of which there are several spellings.
func hint(annotations map[string]string, name string) string {
	for _, spelling := range []string{name, strings.ReplaceAll(name, "/", "."), strings.NewReplacer("/", "_", ".", "_").Replace(name)} {
		if v, ok := annotations[spelling]; ok {
			return v
		}
	}
	return ""
}

// parseTargets reads PORT:PATH,PORT:PATH.
func (s *scrape) parseTargets(text string) error {
	for _, entry := range splitList(text) {
		port, path, _ := strings.Cut(entry, ":")
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			return fmt.Errorf("annotation %s: %q is not PORT:PATH", annotationTargets, entry)
		}
		if path == "" {
			path = "/metrics"
		}
		s.Targets = append(s.Targets, target{Port: port, Path: path})
	}
	if len(s.Targets) > 0 {
		s.Port, s.Path = s.Targets[0].Port, s.Targets[0].Path
	}
	return nil
}
