package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/lateen-mesh/lateen/local"
)

// newAuthorityCommand is `lateen ca`: the roots that the mesh trusts.
func newAuthorityCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "ca", Short: "Show and rotate the roots that the mesh trusts", Args: cobra.ArbitraryArgs, RunE: noCommand,
	}
	cmd.AddCommand(newAuthorityStatus(), newAuthorityRotate())
	return cmd
}

func newAuthorityStatus() *cobra.Command {
	var c connection
	var form string
	cmd := &cobra.Command{
		Use: "status", Short: "Show the roots of the mesh, and which proxies lack one", Args: arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkForm(form); err != nil {
				return err
			}
			r := rotation{connection: c, out: cmd.OutOrStdout()}
			now, err := r.look(cmd.Context(), 0)
			if err != nil {
				return err
			}
			if form != "" {
				return encode(r.out, form, now)
			}
			return now.print(r.out)
		},
	}
	c.add(cmd.Flags())
	cmd.Flags().StringVarP(&form, "output", "o", "", "json or yaml")
	return cmd
}

func newAuthorityRotate() *cobra.Command {
	r := &rotation{underWay: 10 * time.Second}
	cmd := &cobra.Command{
		Use: "rotate", Short: "Have a new root take the place of the one that signs",
		Long: `Have a new root take the place of the one that signs certificates of workloads:

  1. the new root is trusted beside the old one,
  2. the new root signs, and all proxies get new certificates,
  3. the old root is trusted no more.

A step is taken when every proxy has proved that it has what the step before brought. A proxy
that does not prove it is named, and nothing is taken away. The command can be stopped at any
time: the next one goes on from there.

An authority that an operator has plugged in (Secret cacerts, or a directory) is changed there,
step by step; lateen ca status says when the proxies have each.`,
		Args: arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			r.out = cmd.OutOrStdout()
			ctx, cancel := context.WithTimeout(cmd.Context(), r.timeout)
			defer cancel()
			return r.run(ctx)
		},
	}
	r.add(cmd.Flags())
	cmd.Flags().DurationVar(&r.timeout, "timeout", 10*time.Minute, "how long to wait for proxies")
	return cmd
}

// A rotation is the flags of rotate.
type rotation struct {
	connection
	timeout time.Duration
	// underWay is how long handshakes take at most that began before the proofs (Istio's
	// connectTimeout): no step is taken before they have ended.
	underWay time.Duration
	out      io.Writer
	said     string                                                             // last
	planes   func(context.Context) (all []controlPlane, hasAPI bool, err error) // of a test; nil: those of the mesh
}

// Phases of a rotation, as control planes call them.
const (
	settled  = "settled"
	trusting = "trusting"
	signing  = "signing"
)

// An authorityStatus is what all control planes tell together.
type authorityStatus struct {
	local.Rotation
	// Missing are the proxies without proof, and why.
	Missing map[string]string `json:"missing,omitempty"`
	// Apart is whether control planes work with different roots, or proxies are not told yet.
	Apart bool `json:"apart,omitempty"`

	planes []controlPlane
}

// look asks all control planes. Each waits for a while for its proxies.
func (r *rotation) look(ctx context.Context, patience time.Duration) (*authorityStatus, error) {
	find := r.controlPlanes
	if r.planes != nil {
		find = r.planes
	}
	planes, _, err := find(ctx)
	if err != nil {
		return nil, err
	}
	s := &authorityStatus{Missing: map[string]string{}, planes: planes}
	connected := map[string]bool{}
	for _, p := range planes {
		var one local.Rotation
		if err := p.read(ctx, http.MethodGet, "/debug/ca?timeout="+patience.String(), &one); err != nil {
			return nil, err
		}
		if one.Authority == nil {
			return nil, fmt.Errorf("%s has no certificate authority yet; its log says why", p.name)
		}
		s.Apart = s.Apart || !one.Told || s.Authority != nil && s.Authority.Digest != one.Authority.Digest
		s.Authority, s.Told = one.Authority, !s.Apart
		s.Proofs, s.Pods = append(s.Proofs, one.Proofs...), append(s.Pods, one.Pods...)
		s.Namespaces = append(s.Namespaces, one.Namespaces...)
	}
	for _, p := range s.Proofs {
		connected[p.ID] = true
		if p.Missing != "" {
			s.Missing[p.ID] = p.Missing
		}
	}
	for _, id := range s.Pods {
		if !connected[id] {
			s.Missing[id] = "it is connected to no control plane"
		}
	}
	for _, name := range s.Namespaces {
		s.Missing["namespace "+name] = "its ConfigMap istio-ca-root-cert, which new pods mount, is not written yet"
	}
	return s, nil
}

// proxies is how many there are, and how many have proved that they have what is trusted.
func (s *authorityStatus) proxies() (proved, all int) {
	names := map[string]bool{}
	for _, p := range s.Proofs {
		names[p.ID] = true
	}
	for _, id := range s.Pods {
		names[id] = true
	}
	for id := range names {
		if s.Missing[id] == "" {
			proved++
		}
	}
	return proved, len(names)
}

func (s *authorityStatus) print(out io.Writer) error {
	table := tabwriter.NewWriter(out, 0, 8, 3, ' ', 0)
	fmt.Fprintln(table, "ROOT\tUNTIL\tUSE")
	for _, root := range s.Authority.Roots {
		use := "is trusted"
		if root.Signs {
			use = "signs"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\n", short(root.Fingerprint), root.Until.Format(time.DateOnly), use)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if phase := string(s.Authority.Phase); phase != settled {
		fmt.Fprintf(out, "A rotation of the root is in phase %q; lateen ca rotate goes on with it.\n", phase)
	}
	proved, all := s.proxies()
	fmt.Fprintf(out, "%d of %d proxies have proved that they trust these roots and have a certificate of the one that signs.\n", proved, all)
	for _, id := range slices.Sorted(maps.Keys(s.Missing)) {
		fmt.Fprintf(out, "  %s: %s\n", id, s.Missing[id])
	}
	return nil
}

// short is enough of a fingerprint to tell roots apart.
func short(fingerprint string) string { return fingerprint[:min(len(fingerprint), 16)] }

// run goes through the phases from the one that the mesh is in.
func (r *rotation) run(ctx context.Context) error {
	now, err := r.look(ctx, 0)
	if err != nil {
		return err
	}
	if string(now.Authority.Phase) != settled {
		r.say("going on with the rotation that was begun")
	}
	for first := true; ; first = false {
		phase := string(now.Authority.Phase)
		if !first || phase != settled { // to begin needs no proof
			if now, err = r.proved(ctx, now); err != nil {
				return err
			}
		}
		if !first && phase == settled {
			r.say("done: root " + signer(now) + " signs, and no other is trusted of this authority")
			return nil
		}
		if !first || phase != settled {
			if err := r.pause(ctx); err != nil {
				return err
			}
		}
		next, err := now.step(ctx)
		if err != nil {
			return err
		}
		if next.Authority.Phase == now.Authority.Phase {
			return fmt.Errorf("the step after phase %q brought nothing", phase)
		}
		now.Authority = next.Authority
	}
}

// pause waits for what was under way with the proofs.
func (r *rotation) pause(ctx context.Context) error {
	ended := time.NewTimer(r.underWay)
	defer ended.Stop()
	select {
	case <-ended.C:
		return nil
	case <-ctx.Done():
		return withHint(ctx.Err(), "no root was taken away; lateen ca rotate goes on from here")
	}
}

// step has one control plane take the step that follows; the others read what it writes.
func (s *authorityStatus) step(ctx context.Context) (*local.Rotation, error) {
	var next local.Rotation
	query := url.Values{"after": {string(s.Authority.Phase)}}
	return &next, s.planes[0].read(ctx, http.MethodPost, "/debug/ca?"+query.Encode(), &next)
}

// proved waits until every proxy has proved that it has what the phase has brought.
func (r *rotation) proved(ctx context.Context, now *authorityStatus) (*authorityStatus, error) {
	phase := now.Authority.Phase
	for {
		next, err := r.look(ctx, patience)
		switch {
		case err != nil && ctx.Err() != nil:
			return nil, now.unproved()
		case err != nil:
			return nil, err
		case !next.Apart && next.Authority.Phase != phase:
			return nil, fmt.Errorf("somebody else has changed the rotation, to phase %q", next.Authority.Phase)
		}
		now = next
		proved, all := now.proxies()
		r.say(fmt.Sprintf("%s: %d of %d proxies", now.what(string(phase)), proved, all))
		if !now.Apart && len(now.Missing) == 0 {
			return now, nil
		}
		if now.Apart && len(now.planes) > 1 {
			for _, p := range now.planes { // they look by themselves once a minute
				if err := p.read(ctx, http.MethodPost, "/debug/ca", &local.Rotation{}); err != nil && ctx.Err() == nil {
					return nil, err
				}
			}
		}
		again := time.NewTimer(patience / 4)
		select {
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			return nil, now.unproved()
		}
	}
}

// what the proxies are waited for.
func (s *authorityStatus) what(phase string) string {
	switch phase {
	case trusting:
		return "trusting another root beside " + signer(s)
	case signing:
		return "signing with root " + signer(s)
	}
	return "trusting root " + signer(s) + " alone"
}

func signer(s *authorityStatus) string {
	for _, root := range s.Authority.Roots {
		if root.Signs {
			return short(root.Fingerprint)
		}
	}
	return ""
}

// unproved names who has not proved what is waited for.
func (s *authorityStatus) unproved() error {
	err := errors.New("control planes do not agree on the roots yet")
	if names := slices.Sorted(maps.Keys(s.Missing)); len(names) > 0 {
		var list []string
		for _, id := range names[:min(len(names), 10)] {
			list = append(list, id+": "+s.Missing[id])
		}
		err = fmt.Errorf("%d proxies have not proved that they have the roots: %s", len(names), strings.Join(list, "; "))
	}
	return withHint(err, "no root was taken away; lateen ca rotate goes on when they do, lateen ca status shows them")
}

// say prints what is new.
func (r *rotation) say(text string) {
	if text != r.said {
		r.said = text
		fmt.Fprintln(r.out, text)
	}
}
