// Command httpscontrol is the lab's second control server: Tailscale's own in-memory test control, which
// (unlike headscale) hands out certificate names and the https capability, so that `tailscale serve
// --https` answers over real TLS. It borrows headscale's DERP relay.
package main

import (
	"flag"
	"log"
	"net/http"

	"tailscale.com/tailcfg"
	"tailscale.com/tstest/integration/testcontrol"
	"tailscale.com/types/dnstype"
)

func main() {
	listen := flag.String("listen", "", "ADDR:PORT to serve on; clients must reach it by the same address")
	domain := flag.String("domain", "", "MagicDNS domain of the tailnet")
	derpHost := flag.String("derp-host", "", "address of the DERP and STUN server")
	derpPort := flag.Int("derp-port", 0, "its HTTP port")
	stunPort := flag.Int("stun-port", 0, "its STUN port")
	flag.Parse()

	const region = 999
	control := &testcontrol.Server{
		ExplicitBaseURL:  "http://" + *listen,
		MagicDNSDomain:   *domain,
		DNSConfig:        &tailcfg.DNSConfig{Proxied: true, Domains: []string{*domain}, Routes: map[string][]*dnstype.Resolver{*domain: nil}},
		AllOnline:        true,
		AllNodesSameUser: true,
		DERPMap: &tailcfg.DERPMap{Regions: map[int]*tailcfg.DERPRegion{region: {
			RegionID: region, RegionCode: "lab", RegionName: "lab",
			Nodes: []*tailcfg.DERPNode{{
				Name: "lab", RegionID: region, HostName: *derpHost, IPv4: *derpHost, IPv6: "none",
				DERPPort: *derpPort, STUNPort: *stunPort,
			}},
		}}},
		// Everyone may log in as any user, without a check.
		SSHPolicy: &tailcfg.SSHPolicy{Rules: []*tailcfg.SSHRule{{
			Principals: []*tailcfg.SSHPrincipal{{Any: true}},
			SSHUsers:   map[string]string{"*": "=", "root": "root"},
			Action:     &tailcfg.SSHAction{Accept: true, AllowLocalPortForwarding: true, AllowRemotePortForwarding: true},
		}}},
	}
	log.Fatal(http.ListenAndServe(*listen, control))
}
