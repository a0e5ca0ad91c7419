use std::time::Duration;

use clap::{Args, ValueEnum};
use domain::{
    Clock as _, EndpointKind, GroupId, InvalidLabel, LabelName, LabelText, ModelPattern,
    ProviderId, SystemClock, VirtualKeyName, parse_network,
};
use strongroom_proto::v1;

use crate::expiry;

/// What can be said of a virtual key.
#[derive(Args, Debug)]
pub(super) struct Fields {
    /// A name for people.
    #[arg(long)]
    display_name: Option<String>,
    /// After how long the key is refused: `30d`, `12h`. Absent: never.
    #[arg(long, value_parser = expiry::parse)]
    expires: Option<Duration>,
    /// The models it may use, with commas between: names, or beginnings that end in `*`. Absent: all.
    #[arg(long, visible_alias = "model", value_delimiter = ',')]
    models: Vec<ModelPattern>,
    /// The providers it may reach, with commas between. Absent: all.
    #[arg(long, visible_alias = "provider", value_delimiter = ',')]
    providers: Vec<ProviderId>,
    /// The kinds of calls it is for, with commas between: `chat_completions`, `embeddings` and others.
    /// Absent: all.
    #[arg(long, visible_alias = "endpoint", value_delimiter = ',')]
    endpoints: Vec<EndpointKind>,
    /// The networks it may be used from, with commas between: `10.0.0.0/8`, `192.0.2.1`. Absent: all.
    #[arg(long, visible_alias = "network", value_delimiter = ',', value_parser = network)]
    networks: Vec<String>,
    /// What people sort keys by, as `team=search`. Repeatable; the labels as they were are replaced.
    #[arg(long, value_name = "NAME=TEXT", value_parser = label)]
    label: Vec<(LabelName, LabelText)>,
    /// Who answers for the key.
    #[arg(long)]
    owner: Option<LabelText>,
    /// The keys that it shares budgets with.
    #[arg(long)]
    group: Option<GroupId>,
    /// How many calls may begin in a minute.
    #[arg(long, visible_alias = "requests-per-minute", value_parser = clap::value_parser!(u64).range(1..))]
    rpm: Option<u64>,
    /// How many tokens of input and output may be used in a minute.
    #[arg(long, visible_alias = "tokens-per-minute", value_parser = clap::value_parser!(u64).range(1..))]
    tpm: Option<u64>,
    /// How many calls may be under way at once.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    concurrent: Option<u64>,
}

/// What can be taken away from a virtual key.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(super) enum Field {
    DisplayName,
    Expires,
    Models,
    Providers,
    Endpoints,
    Networks,
    Labels,
    Owner,
    Group,
    Rpm,
    Tpm,
    Concurrent,
}

impl Field {
    /// Its name in the contract.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::DisplayName => "display_name",
            Self::Expires => "expire_time",
            Self::Models => "models",
            Self::Providers => "providers",
            Self::Endpoints => "endpoints",
            Self::Networks => "networks",
            Self::Labels => "labels",
            Self::Owner => "owner",
            Self::Group => "group",
            Self::Rpm => "requests_per_minute",
            Self::Tpm => "tokens_per_minute",
            Self::Concurrent => "concurrent",
        }
    }
}

impl Fields {
    /// The key as it is to be, and which fields were given.
    pub(super) fn take(self, name: &VirtualKeyName) -> (v1::VirtualKey, Vec<&'static str>) {
        let given = [
            (Field::DisplayName, self.display_name.is_some()),
            (Field::Expires, self.expires.is_some()),
            (Field::Models, !self.models.is_empty()),
            (Field::Providers, !self.providers.is_empty()),
            (Field::Endpoints, !self.endpoints.is_empty()),
            (Field::Networks, !self.networks.is_empty()),
            (Field::Labels, !self.label.is_empty()),
            (Field::Owner, self.owner.is_some()),
            (Field::Group, self.group.is_some()),
            (Field::Rpm, self.rpm.is_some()),
            (Field::Tpm, self.tpm.is_some()),
            (Field::Concurrent, self.concurrent.is_some()),
        ];
        let given = given.into_iter().filter(|(_, given)| *given).map(|(field, _)| field.path());
        let label = |(name, text): (LabelName, LabelText)| (name.as_str().into(), text.to_string());
        let key = v1::VirtualKey {
            name: name.to_string(),
            display_name: self.display_name.unwrap_or_default(),
            expire_time: self.expires.map(|after| audit::proto_time(SystemClock.now() + after)),
            models: self.models.iter().map(ToString::to_string).collect(),
            providers: self.providers.iter().map(ToString::to_string).collect(),
            endpoints: self.endpoints.iter().map(|kind| kind.as_str().to_owned()).collect(),
            networks: self.networks,
            labels: self.label.into_iter().map(label).collect(),
            owner: self.owner.map(|owner| owner.to_string()).unwrap_or_default(),
            group: self.group.map(|group| group.to_string()).unwrap_or_default(),
            requests_per_minute: self.rpm.unwrap_or_default(),
            tokens_per_minute: self.tpm.unwrap_or_default(),
            concurrent: self.concurrent.unwrap_or_default(),
            ..v1::VirtualKey::default()
        };
        (key, given.collect())
    }
}

fn network(text: &str) -> Result<String, InvalidLabel> {
    parse_network(text).map(|network| network.to_string())
}

fn label(text: &str) -> Result<(LabelName, LabelText), String> {
    let (name, text) = text.split_once('=').ok_or("a label is NAME=TEXT, as `team=search`")?;
    let wrong = |error: InvalidLabel| error.to_string();
    Ok((name.parse().map_err(wrong)?, text.parse().map_err(wrong)?))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        fields: Fields,
    }

    fn read(line: &str) -> Option<(v1::VirtualKey, Vec<&'static str>)> {
        let words = ["keys"].into_iter().chain(line.split_whitespace());
        let name = "tenants/acme/virtualKeys/aaaabbbbccccdddd".parse().unwrap();
        Line::try_parse_from(words).ok().map(|line| line.fields.take(&name))
    }

    #[test]
    fn only_what_is_given_is_named_in_the_mask() {
        assert_eq!(read("").unwrap().1, Vec::<&str>::new());
        let (key, paths) =
            read("--rpm 60 --network 10.1.2.3/8,192.0.2.1 --label team=a=b --label x=1").unwrap();
        assert_eq!(paths, ["networks", "labels", "requests_per_minute"]);
        assert_eq!(key.networks, ["10.0.0.0/8", "192.0.2.1/32"]);
        assert_eq!((key.labels["team"].as_str(), key.labels["x"].as_str()), ("a=b", "1"));
        assert_eq!(key.requests_per_minute, 60);
        let (key, paths) =
            read("--endpoint chat_completions,models --owner Zoë --group batch --models gpt-*")
                .unwrap();
        assert_eq!(paths, ["models", "endpoints", "owner", "group"]);
        assert_eq!(key.endpoints, ["chat_completions", "models"]);
        assert_eq!((&*key.owner, &*key.group), ("Zoë", "batch"));
    }

    #[test]
    fn what_cannot_be_is_refused_before_anyone_is_asked() {
        for line in [
            "--rpm 0",
            "--network office",
            "--endpoint files",
            "--label team",
            "--label Team=x",
            "--group Batch",
            "--expires soon",
        ] {
            assert!(read(line).is_none(), "{line}");
        }
    }
}
