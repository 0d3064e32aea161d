package analyze

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// An injector is one webhook that injects.
type injector struct {
	of   *object
	at   string
	hook admissionv1.MutatingWebhook
}

func (i injector) name() string { return i.of.Name + "/" + i.hook.Name }

// webhooks finds webhooks that would inject one pod together, and such that ask a service
// that is not there.
func webhooks(p *pass) {
	all := p.webhooks()
	overlapping := map[string][]string{}
	for _, in := range combinations(all, []string{labelInjection}, []string{"enabled", "disabled"}) {
		for _, of := range combinations(all, []string{injectWish}, []string{"true", "false"}) {
			var match []injector
			for _, i := range all {
				if chooses(i.hook.NamespaceSelector, in) && chooses(i.hook.ObjectSelector, of) {
					match = append(match, i)
				}
			}
			for _, i := range match {
				for _, other := range match {
					if other.name() != i.name() && !slices.Contains(overlapping[i.name()], other.name()) {
						overlapping[i.name()] = append(overlapping[i.name()], other.name())
					}
				}
			}
		}
	}
	for _, i := range all {
		if others := overlapping[i.name()]; len(others) > 0 {
			slices.Sort(others)
			p.report(i.of, i.at, InvalidWebhook, fmt.Sprintf("Webhook overlaps with others: %v. This may cause injection to occur twice.", others))
		}
		if s := i.hook.ClientConfig.Service; s != nil && p.get(service, s.Namespace, s.Name) == nil {
			p.report(i.of, i.at+".clientConfig.service", InvalidWebhook,
				fmt.Sprintf("Injector refers to a control plane service that does not exist: %s/%s.", s.Namespace, s.Name))
		}
	}
}

// webhooks are those of configurations with one of Istio's.
func (p *pass) webhooks() []injector {
	var all []injector
	for _, o := range of[*admissionv1.MutatingWebhookConfiguration](p.Mesh, mutatingWebhook) {
		if !slices.ContainsFunc(o.spec.Webhooks, func(w admissionv1.MutatingWebhook) bool { return strings.HasSuffix(w.Name, "istio.io") }) {
			continue
		}
		for n, w := range o.spec.Webhooks {
			all = append(all, injector{o.object, indexed("webhooks", n), w})
		}
	}
	return all
}

// combinations are the sets of labels that make a difference to webhooks: one of the names
// with one of the values or none, with each revision or none.
func combinations(all []injector, names, values []string) []map[string]string {
	sets := []map[string]string{{}}
	for _, name := range names {
		for _, v := range values {
			sets = append(sets, map[string]string{name: v})
		}
	}
	for _, revision := range revisions(all) {
		for _, set := range slices.Clone(sets) {
			if set[labelRevision] == "" {
				with := maps.Clone(set)
				with[labelRevision] = revision
				sets = append(sets, with)
			}
		}
	}
	return sets
}

// revisions are those that webhooks are of or ask for.
func revisions(all []injector) []string {
	found := map[string]bool{}
	for _, i := range all {
		if r := i.of.labels[labelRevision]; r != "" {
			found[r] = true
		}
		for _, s := range []*metav1.LabelSelector{i.hook.NamespaceSelector, i.hook.ObjectSelector} {
			if s == nil {
				continue
			}
			if r := s.MatchLabels[labelRevision]; r != "" {
				found[r] = true
			}
			for _, e := range s.MatchExpressions {
				if e.Key == labelRevision {
					for _, r := range e.Values {
						found[r] = true
					}
				}
			}
		}
	}
	return sortedKeys(found)
}
