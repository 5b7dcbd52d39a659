-- What becomes of each line (a user and a candidate item) of a campaign. `reason` is the first that
-- takes the line off the list, in the order of REASONS in selection.py, or `final`.
--
-- A contact is who receives the message: a user, or all users with the same `deduplicate_by`.
-- Suppression, caps and the holdout are matters of the contact. The temporary tables consents,
-- suppressions, sent, tonight and segment hold user_id in the type of users.
create or replace temp table judged as
with
contacts as (
    select user_id, coalesce('key ' || {key}, 'user ' || user_id::varchar) as contact
    from users
),

-- The user.
no_consent as (
    from users anti join (
        select user_id from consents where campaign is null or campaign = lower($campaign)
        group by user_id having bool_and(coalesce(consent, false))
    ) using (user_id)
    where $require_consent
),
suppressed as (  -- ids that differ in case or blanks are taken for the same: better one too many
    select distinct contact
    from suppressions s join contacts c
    on lower(trim(s.user_id::varchar)) = lower(trim(c.user_id::varchar))
    where campaign is null or campaign = lower($campaign)
),
cooling_off as (
    select user_id from user_behaviours
    where behaviour = $cool_off_after and last_at >= $as_of - to_days($cool_off_days::integer)
),
messages as (
    select contact, count(*) filter (not planned) as sent, count(*) as sent_and_planned
    from (
        select user_id, false as planned from sent
        where sent_at > $as_of - to_days($cap_days::integer)
        union all
        select user_id, true from tonight
    ) join contacts using (user_id)
    group by contact
),
persons as (
    select user_id, contact, case
        when user_id not in (select user_id from segment) then 'segment'
        when user_id in (select user_id from no_consent) then 'no_consent'
        when contact in (select contact from suppressed) then 'suppressed'
        when user_id in (select user_id from cooling_off) then 'cooling_off'
        when sent >= $cap_messages::integer then 'frequency_cap'
        when sent_and_planned >= $cap_messages::integer then 'priority'
    end as reason
    from contacts left join messages using (contact)
),

-- The item.
offers as (
    select item_id, category, brand, case
        when $only_available and not available then 'stock'
        when list_contains($exclude_categories::varchar[], category) then 'category'
        when list_contains($exclude_brands::varchar[], brand) then 'brand'
        when (price >= $min_price::double is false or price <= $max_price::double is false)
             or (price is null and coalesce($min_price::double, $max_price::double) is not null)
        then 'price'
    end as reason
    from items
),
lines as (
    select user_id, item_id, position, probability, contact, category, brand,
           coalesce(persons.reason, offers.reason,
                    case when not probability between $min_probability and 1 then 'probability' end
           ) as reason
    from predictions join persons using (user_id) join offers using (item_id)
    where behaviour = $behaviour
),

-- The user's list.
allowed as (from lines where reason is null),
category_limit as (
    from allowed
    qualify category is null or $max_per_category::integer is null
        or row_number() over (partition by user_id, category order by position)
           <= $max_per_category::integer
),
brand_limit as (
    from category_limit
    qualify brand is null or $max_per_brand::integer is null
        or row_number() over (partition by user_id, brand order by position)
           <= $max_per_brand::integer
),
listed as (
    select *, row_number() over (partition by user_id order by position) as place
    from brand_limit qualify place <= $items_per_user
),

-- The audience. A user is as likely as the likeliest of the listed items.
mailable as (select user_id, contact, max(probability) as best from listed group by all),
distinct_contacts as (
    from mailable
    qualify row_number() over (partition by contact order by best desc, user_id) = 1
),
top_share as (
    from distinct_contacts
    qualify row_number() over (order by best desc, user_id)
            <= round(coalesce($top_share::double, 1) * count(*) over ())
),
mailed as (
    from top_share
    where ('0x' || left(sha256($holdout_salt || ' ' || contact), 13))::bigint
          >= $holdout_share::double * 16 ** 13
),

removed as (
    select user_id, item_id, reason from lines where reason is not null
    union all
    select user_id, item_id, 'category_limit'
    from allowed anti join category_limit using (user_id, item_id)
    union all
    select user_id, item_id, 'brand_limit'
    from category_limit anti join brand_limit using (user_id, item_id)
    union all
    select user_id, item_id, 'items_per_user'
    from brand_limit anti join listed using (user_id, item_id)
)
select user_id, item_id, null as place, null as best, reason from removed
union all
select listed.user_id, item_id, place, mailable.best, case
    when d.user_id is null then 'same_contact'
    when t.user_id is null then 'top_share'
    when m.user_id is null then 'holdout'
    else 'final'
end
from listed
join mailable using (user_id)
left join distinct_contacts d using (user_id)
left join top_share t using (user_id)
left join mailed m using (user_id)
