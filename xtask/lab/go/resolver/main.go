// Command resolver is the name server of the lab's internet. It knows no name, and says so at once: without it,
// every question about a name outside of the tailnet would wait for its timeout.
package main

import (
	"log"
	"net"
	"os"
)

func main() {
	conn, err := net.ListenPacket("udp", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	packet := make([]byte, 4096)
	for {
		n, from, err := conn.ReadFrom(packet)
		if err != nil {
			log.Fatal(err)
		}
		if n < 12 {
			continue
		}
		const response, recursionAvailable, nxDomain = 0x80, 0x80, 3
		packet[2] |= response
		packet[3] = recursionAvailable | nxDomain
		if _, err := conn.WriteTo(packet[:n], from); err != nil {
			log.Print(err)
		}
	}
}
