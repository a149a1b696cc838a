# Makes the disk, the kernel and the initramfs of an executor VM in the folder $1, from the package
# sources in the file $2: Debian with systemd as its pid 1, Docker, and a shell on its second serial
# line.
set -e
folder=$1 root=$1/root

# The initramfs needs nothing but the disk.
initramfs='echo MODULES=list >"$1/etc/initramfs-tools/conf.d/modules" &&
    printf "%s\n" virtio_pci virtio_blk ext4 >>"$1/etc/initramfs-tools/modules" &&
    chroot "$1" update-initramfs -u'
# AppArmor's own profiles take 20 s to compile in emulation, and dockerd loads its own.
services='chroot "$1" systemctl --quiet disable apparmor systemd-resolved apt-daily.timer \
    apt-daily-upgrade.timer dpkg-db-backup.timer fstrim.timer getty@tty1 &&
    chroot "$1" systemctl --quiet enable systemd-networkd'
mmdebstrap --mode=root --variant=minbase --include="\
systemd,systemd-sysv,systemd-resolved,libnss-resolve,dbus,udev,kmod,iproute2,procps,apparmor,\
iptables,ca-certificates,docker.io,docker-cli,docker-buildx,docker-compose,\
initramfs-tools,linux-image-cloud-amd64" --aptopt='APT::Sandbox::User "root"' \
    --customize-hook="$initramfs" --customize-hook="$services" '' "$root" "$2"
mv "$root"/boot/vmlinuz-* "$folder/vmlinuz"
mv "$root"/boot/initrd.img-* "$folder/initrd.img"

echo executor >"$root/etc/hostname"
echo '127.0.0.1 localhost executor' >"$root/etc/hosts"
echo '/dev/vda / ext4 defaults 0 1' >"$root/etc/fstab"

# The node of the test bed, by its addresses (testbed::topology).
cat >"$root/etc/systemd/network/uplink.network" <<'FILE'
[Match]
Name=en*

[Network]
Address=198.51.100.1/24
Address=198.51.100.2/24
DNS=203.0.113.53
LinkLocalAddressing=no
IPv6AcceptRA=no

[Route]
Destination=203.0.113.0/24
Scope=link
PreferredSource=198.51.100.1

[Route]
Gateway=203.0.113.1
GatewayOnLink=yes
PreferredSource=198.51.100.1
FILE

# Commands come line by line, as testbed::guests::SerialShell sends them. Like a job's executor, it
# is a service.
cat >"$root/usr/local/sbin/serial-shell" <<'FILE'
#!/bin/bash
exec 3<>/dev/ttyS1
stty -F /dev/ttyS1 raw -echo
echo '@@ready' >&3
while read -r line <&3; do
    bash -c "$line" </dev/null >&3 2>&1 3>&-
    printf '\n@@%d\n' $? >&3
done
FILE
chmod 755 "$root/usr/local/sbin/serial-shell"
cat >"$root/etc/systemd/system/serial-shell.service" <<'FILE'
[Unit]
Description=A shell on the second serial line
After=systemd-user-sessions.service

[Service]
Environment=HOME=/root DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
ExecStart=/usr/local/sbin/serial-shell

[Install]
WantedBy=multi-user.target
FILE
ln -s ../serial-shell.service "$root/etc/systemd/system/multi-user.target.wants/"
rm -f "$root/etc/resolv.conf"
echo 'nameserver 203.0.113.53' >"$root/etc/resolv.conf"

# What jobs run: glibc's resolver, and a shell that connects.
job=$folder/job
mkdir -p "$job/bin" "$job/tmp"
for program in bash cat sleep getent; do
    cp -L "$root/usr/bin/$program" "$job/bin/"
    chroot "$root" ldd "/usr/bin/$program" | grep -o '/[^ ]*' | while read -r library; do
        mkdir -p "$job$(dirname "$library")"
        cp -L "$root$library" "$job$library"
    done
done
tar --create --directory "$job" --file "$root/root/job.tar" .

rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/apt
truncate --size 8G "$folder/disk.img"
mkfs.ext4 -q -d "$root" -L root "$folder/disk.img"
rm -rf "$root" "$job"
