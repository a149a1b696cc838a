# A machine image for executors with redirector, from the platform's own executor image. The official
# Terraform modules take nothing but an image, so the routes are part of it.
#
#   cargo xtask deb
#   packer init deploy/executor-vm
#   packer build -only='googlecompute.*' -var project=PROJECT -var source_image=IMAGE \
#       -var source_project=IMAGE_PROJECT deploy/executor-vm
#   packer build -only='amazon-ebs.*' -var source_ami=AMI deploy/executor-vm
packer {
  required_plugins {
    googlecompute = {
      source  = "github.com/hashicorp/googlecompute"
      version = "~> 1.1"
    }
    amazon = {
      source  = "github.com/hashicorp/amazon"
      version = "~> 1.3"
    }
  }
}

variable "package" {
  type        = string
  default     = "target/debian/redirector.deb"
  description = "What cargo xtask deb has made"
}

variable "configuration" {
  type        = string
  default     = "deploy/redirector.toml"
  description = "The routes: your own redirector.toml"
}

variable "project" {
  type        = string
  default     = ""
  description = "Google Cloud: the project of the new image"
}

variable "zone" {
  type        = string
  default     = "us-central1-c"
  description = "Google Cloud: where the image is built"
}

variable "source_image" {
  type        = string
  default     = ""
  description = "Google Cloud: the executor image to start from"
}

variable "source_project" {
  type        = string
  default     = ""
  description = "Google Cloud: the project of that image"
}

variable "region" {
  type        = string
  default     = "us-west-2"
  description = "AWS: where the image is built"
}

variable "source_ami" {
  type        = string
  default     = ""
  description = "AWS: the executor image to start from"
}

locals {
  name = "executor-redirector-${formatdate("YYYYMMDDhhmmss", timestamp())}"
}

source "googlecompute" "executor" {
  project_id              = var.project
  zone                    = var.zone
  source_image            = var.source_image
  source_image_project_id = [var.source_project]
  image_name              = local.name
  machine_type            = "e2-standard-2"
  ssh_username            = "packer"
}

source "amazon-ebs" "executor" {
  region        = var.region
  source_ami    = var.source_ami
  ami_name      = local.name
  instance_type = "t3.medium"
  ssh_username  = "ubuntu"
}

build {
  sources = ["source.googlecompute.executor", "source.amazon-ebs.executor"]

  provisioner "file" {
    source      = var.package
    destination = "/tmp/redirector.deb"
  }

  provisioner "file" {
    source      = var.configuration
    destination = "/tmp/redirector.toml"
  }

  # The configuration before the package: then the package checks it, and keeps it. redirector check
  # ends the build if the image's kernel cannot run the agent.
  provisioner "shell" {
    inline = [
      "sudo install -D -m 0644 /tmp/redirector.toml /etc/redirector/redirector.toml",
      "sudo apt-get install --yes -o Dpkg::Options::=--force-confold /tmp/redirector.deb",
      "sudo redirector config check /etc/redirector/redirector.toml",
      "sudo redirector check",
      "sudo systemctl is-enabled redirector",
      "rm /tmp/redirector.deb /tmp/redirector.toml",
    ]
  }
}
